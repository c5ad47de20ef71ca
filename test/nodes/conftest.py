# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A ROS graph per test: its own domain, real DDS, in-process nodes and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk
from hbvla_ros.evaluation.processes import free_domain, ros_environment
from hbvla_ros.nodes.conversions import chunk_to_message, encode_jpeg, joint_state, to_time

PROFILE = RobotProfile.load('aloha_sim')
START = PROFILE.start_pose


# Only a test that fails waits for so long, s; a machine with other work may need most of it.
PATIENCE = 300.0
# Period of the fake robot's joint states, s.
JOINT_PERIOD = 0.02


def wait_for(condition, timeout=PATIENCE):
    """Wait until ``condition()`` is true; its last value."""
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


class Process:
    """A node as a real process; its output is kept."""

    def __init__(self, module, domain, arguments):
        environment = dict(ros_environment(domain), OMP_NUM_THREADS='1')
        self.process = subprocess.Popen(
            [sys.executable, '-m', module, *arguments],
            env=environment,
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_running(self):
        return self.process.poll() is None

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def says(self, text):
        """Wait for a line with ``text``; it is an error to end before."""
        wait_for(lambda: any(text in x for x in self.lines) or not self.is_running)
        if not self.is_running:
            self._reader.join(PATIENCE)
        assert any(text in x for x in self.lines), ''.join(self.lines)

    def minds_signals(self):
        """Wait until SIGTERM no longer just ends it."""
        caught = f'/proc/{self.process.pid}/status'

        def minds():
            mask = Path(caught).read_text().partition('SigCgt:')[2].split()[0]
            return int(mask, 16) >> (signal.SIGTERM - 1) & 1

        wait_for(lambda: not self.is_running or minds())
        assert self.is_running, ''.join(self.lines)

    def wait(self):
        """Exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def end(self):
        """Wait for a process that was asked to leave, and kill it if it does not."""
        try:
            self.process.wait(30.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_at_most(self, seconds):
        """Exit status of a process that ends within so many seconds that the machine gave it.

        Time in which this process, too, got no further does not count: a machine that stands
        still says nothing about how long a node takes to leave.
        """
        spent, turn = 0.0, 0.01
        while self.is_running:
            assert spent < seconds, f'not gone after {spent:.2f} s: ' + ''.join(self.lines)
            time.sleep(turn)
            spent += turn
        return self.wait()


class Graph:
    """One DDS domain with an executor thread for in-process nodes."""

    def __init__(self):
        self.domain = free_domain()
        self.context = Context()
        rclpy.init(
            context=self.context,
            domain_id=self.domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self._nodes, self._processes = [], []
        self._stopping = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while not self._stopping:
            self.executor.spin_once(timeout_sec=0.05)

    def add(self, node_class, *arguments, **parameters):
        """Make a node in this graph and spin it."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = node_class(*arguments, context=self.context, parameter_overrides=overrides)
        self._nodes.append(node)
        self.executor.add_node(node)
        return node

    def process(self, module, *remaps, files=(), **parameters):
        """Start a node module of the package as a process."""
        arguments = ['--ros-args']
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else value
            arguments += ['-p', f'{name}:={text}']
        for file in files:
            arguments += ['--params-file', str(file)]
        for remap in remaps:
            arguments += ['-r', remap]
        process = Process(f'hbvla_ros.nodes.{module}', self.domain, arguments)
        self._processes.append(process)
        return process

    def close(self):
        # Asked and not killed: whoever is killed leaves shared memory to the graphs after this one.
        for process in self._processes:
            if process.is_running:
                process.process.terminate()
        for process in self._processes:
            process.end()
        self._stopping = True
        self._thread.join()
        for node in self._nodes:
            if hasattr(node, 'stop'):
                node.stop()
        self.executor.shutdown()
        for node in self._nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)


class FakeRobot(Node):
    """Drivers and cameras of a robot that is where it was last told to be, or stands still.

    Its time is real or, after :meth:`simulate`, simulated: then it stands still whenever this
    process does, so that a machine with other work makes no joint state old and no chunk late.
    """

    def __init__(self, **options):
        super().__init__('fake_robot', **options)
        self.turns = 0
        self._simulated = None
        self.pose = START.copy()
        self.follow = True
        self.joints_on = True
        self.images_on = True
        self.joint_stamp = lambda now: now
        self.image_stamps = []
        self.commands = {arm.name: [] for arm in PROFILE.arms}
        self.reports = []
        self.chunks = []
        self._joints, first = [], 0
        for arm in PROFILE.arms:
            part = slice(first, first + len(arm.names))
            first = part.stop
            self._joints.append((arm, part, self.create_publisher(JointState, arm.state_topic, 5)))
            self.create_subscription(
                Float64MultiArray,
                arm.command_topic,
                lambda m, a=arm, p=part: self._take(a, p, m),
                20,
            )
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._cameras = [
            (camera.name, self.create_publisher(CompressedImage, camera.topic, quality))
            for camera in PROFILE.cameras
        ]
        self._chunk_publisher = self.create_publisher(JointTrajectory, 'action_chunks', 5)
        self.create_subscription(JointTrajectory, 'action_chunks', self.chunks.append, 20)
        self.create_subscription(
            DiagnosticArray, '/diagnostics', lambda m: self.reports.append(m.status[0]), 20
        )
        self._clock_publisher = self.create_publisher(Clock, '/clock', 1)
        self.image = np.full((48, 64, 3), 90, np.uint8)
        # What a camera sees now, by its name.
        self.picture = lambda name: self.image
        self.create_timer(JOINT_PERIOD, self._turn)

    def simulate(self):
        """Go by simulated time from now on, and say so on /clock."""
        self._simulated = 1000.0

    def now(self):
        if self._simulated is not None:
            return self._simulated
        return self.get_clock().now().nanoseconds * 1e-9

    def live(self, seconds):
        """Let so much time pass in which this process gets on; exactly that, when simulated."""
        end = self.turns + round(seconds / JOINT_PERIOD)
        assert wait_for(lambda: self.turns >= end)

    def _turn(self):
        self.turns += 1
        if self._simulated is not None:
            self._simulated += JOINT_PERIOD
            self._clock_publisher.publish(Clock(clock=to_time(self._simulated)))
        self._publish_joints()
        if self.turns % 2:
            self._publish_images()

    def _take(self, arm, part, message):
        values = np.array(message.data)
        values[-1] = arm.command.to_ratio(values[-1])
        self.commands[arm.name].append(values)
        if self.follow:
            self.pose[part] = values

    def _publish_joints(self):
        for arm, part, publisher in self._joints if self.joints_on else ():
            raw = self.pose[part].copy()
            raw[-1] = arm.observed.from_ratio(raw[-1])
            publisher.publish(joint_state(arm.names, raw, self.joint_stamp(self.now())))

    def _publish_images(self):
        stamp = self.now()
        if self.images_on:
            self.image_stamps.append(stamp)
            for name, publisher in self._cameras:
                publisher.publish(encode_jpeg(self.picture(name), stamp, name, 90))

    def send(self, actions, delay=0.0, step=0.04, names=PROFILE.action_names):
        """Publish a chunk that starts ``delay`` seconds from now."""
        # This node listens as well; the other one is the arms'.
        assert wait_for(lambda: self._chunk_publisher.get_subscription_count() >= 2)
        start = self.now() + delay
        chunk = ActionChunk(np.asarray(actions), start, step, start, '', 'test')
        self._chunk_publisher.publish(chunk_to_message(chunk, names))

    def real_chunks(self):
        """Chunks so far that hold rows."""
        return [message for message in list(self.chunks) if message.points]

    def recorded(self):
        """All commands so far as poses (N, A), arms side by side."""
        left, right = (list(self.commands[arm.name]) for arm in PROFILE.arms)
        count = min(len(left), len(right))
        return np.array([np.append(a, b) for a, b in zip(left[:count], right[:count], strict=True)])

    def last(self):
        recorded = self.recorded()
        return recorded[-1] if len(recorded) else None

    def reported(self, node, text):
        """Whether a report of a node had ``text`` in its message."""
        return any(s.name.endswith(node) and text in s.message for s in list(self.reports))

    def report(self, node, key=None):
        """Newest report of a node, or one of its values; empty before the first."""
        found = [s for s in list(self.reports) if s.name.endswith(node)]
        if not found:
            return DiagnosticStatus() if key is None else ''
        return found[-1] if key is None else {v.key: v.value for v in found[-1].values}[key]


@pytest.fixture
def graph():
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def robot(graph):
    return graph.add(FakeRobot)


@pytest.fixture
def wait():
    return wait_for


@pytest.fixture
def profile():
    return PROFILE
