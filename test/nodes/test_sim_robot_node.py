# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The simulated robot as a process, and the whole chain of three processes behind it."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float64MultiArray, Int32, String, UInt64
from std_srvs.srv import Trigger

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.nodes.adapters import ForwardCommand
from hbvla_ros.nodes.conversions import decode_image, to_seconds
from hbvla_ros.vla.platform import ALOHA

CAMERAS = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Deep enough for an operator that was held up for long.
SENSOR = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)


class Operator(Node):
    """Listens to everything the simulated robot says."""

    def __init__(self, **options):
        super().__init__('operator', **options)
        self.heard = {}
        listen = [
            (Clock, '/clock', SENSOR),
            (JointState, 'left/joint_states', SENSOR),
            (JointState, 'right/joint_states', SENSOR),
            (Float64MultiArray, 'left/commands', 1000),
            (String, 'instruction', LATCHED),
            (Bool, 'sim_robot_node/success', LATCHED),
            (Int32, 'sim_robot_node/stage', LATCHED),
            (DiagnosticStatus, 'sim_robot_node/status', LATCHED),
        ] + [(CompressedImage, f'{name}/image/compressed', SENSOR) for name in CAMERAS]
        for kind, topic, quality in listen:
            self.heard[topic] = []
            self.create_subscription(kind, topic, self.heard[topic].append, quality)
        self.episodes = self.create_publisher(UInt64, 'sim_robot_node/episode', 5)

    def last(self, topic):
        return self.heard[topic][-1] if self.heard[topic] else None

    def status(self, key=None):
        message = self.last('sim_robot_node/status')
        if message is None:
            return ''
        return message.message if key is None else {v.key: v.value for v in message.values}[key]

    def stamps(self, topic):
        return [to_seconds(message.header.stamp) for message in list(self.heard[topic])]

    def time(self):
        return to_seconds(self.last('/clock').clock)

    def instructed(self):
        return self.last('instruction').data if self.last('instruction') else ''

    def live(self, seconds, wait):
        """Let so much simulated time pass."""
        end = self.time() + seconds
        assert wait(lambda: self.time() >= end)

    def pose(self, profile):
        parts = [observed_pose(a, self.last(a.state_topic)) for a in profile.arms]
        return np.concatenate(parts)


@pytest.fixture
def operator(graph):
    return graph.add(Operator)


@pytest.fixture
def simulator(graph, operator, wait):
    # Long enough for an operator that was held up to hear that there is no instruction meanwhile.
    process = graph.process('sim_robot_node', seed=3, settle=1.0)
    process.says('simulated aloha_sim is running')
    assert wait(lambda: operator.status() == 'running')
    assert wait(lambda: operator.instructed().startswith('put the '))
    return process


def test_it_looks_like_a_robot(simulator, operator, profile, wait):
    # In simulated time, which a machine with other work does not disturb: a message may be lost
    # on the way to whoever was held up, but what comes is stamped at the rate of its source.
    periods = {'left/joint_states': 0.02, 'right/joint_states': 0.02}
    periods.update({f'{name}/image/compressed': 0.04 for name in CAMERAS})
    assert wait(lambda: all(len(operator.heard[topic]) > 26 for topic in ['/clock', *periods]))
    stamps = {topic: operator.stamps(topic) for topic in periods}
    stamps['/clock'] = [to_seconds(message.clock) for message in list(operator.heard['/clock'])]
    for topic, times in stamps.items():
        period = periods.get(topic, 0.02)
        steps = np.diff(times[1:]) / period  # the first image may be one more, of the start
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4, err_msg=topic)
        assert steps.min() > 0.5 and np.median(steps) == pytest.approx(1.0, abs=1e-4), topic
    for name in CAMERAS:
        image = decode_image(operator.last(f'{name}/image/compressed'))
        assert image.shape == (128, 128, 3) and image.std() > 5
    # The start pose is disturbed by up to 0.1 rad, the grippers by up to 0.3.
    np.testing.assert_allclose(operator.pose(profile), profile.start_pose, atol=0.35)


def test_episode_topic_and_reset_service_start_over(simulator, operator, wait):
    assert operator.status('seed') == '3'
    before = operator.time()
    assert wait(lambda: operator.episodes.get_subscription_count() == 1)
    operator.episodes.publish(UInt64(data=2_000_001))
    assert wait(lambda: operator.status('seed') == '2000001' and operator.status() == 'running')

    def said():
        return [message.data for message in list(operator.heard['instruction'])]

    assert wait(lambda: said()[-2:-1] == [''] and said()[-1].startswith('put the '))
    assert operator.time() > before, 'simulated time never goes back'
    assert operator.status('success') == '0'
    assert wait(lambda: not operator.last('sim_robot_node/success').data)
    client = operator.create_client(Trigger, 'sim_robot_node/reset')
    assert wait(client.service_is_ready)
    answer = client.call_async(Trigger.Request())
    assert wait(answer.done) and answer.result().message == 'seed 2000001'


def test_commands_move_the_arms_and_nonsense_does_not(simulator, operator, profile, wait):
    arm = profile.arms[0]
    publisher = operator.create_publisher(Float64MultiArray, arm.command_topic, 1)
    assert wait(lambda: publisher.get_subscription_count() == 2)
    target = np.append(np.array(arm.start_pose[:6]) + [0.3, 0, 0, 0, 0, 0], 0.2)

    def arrived():
        publisher.publish(ForwardCommand(arm).build(target, 0.0))
        return np.abs(operator.pose(profile)[:7] - target).max() < 0.06

    assert wait(arrived)
    publisher.publish(Float64MultiArray(data=[float('nan')] * 7))
    simulator.says('command ignored: left/commands: command is not finite')
    publisher.publish(Float64MultiArray(data=[0.0]))
    operator.live(0.3, wait)
    assert np.abs(operator.pose(profile)[:7] - target).max() < 0.06
    simulator.process.send_signal(signal.SIGTERM)
    assert simulator.wait() == 0


def test_policy_arm_and_simulator_as_processes(
    graph, operator, make_tiny_checkpoint, profile, wait
):
    platform = {'robot': 'aloha_sim', 'cameras': CAMERAS, 'chunk': ALOHA.chunk}
    checkpoint = make_tiny_checkpoint(platform=platform)
    simulator = graph.process('sim_robot_node', seed=3, settle=0.3)
    arms = graph.process('arm_node', autostart=True, use_sim_time=True)
    policy = graph.process('policy_node', autostart=True, use_sim_time=True, checkpoint=checkpoint)
    for process in (simulator, arms, policy):
        process.says('is running' if process is simulator else 'activate done')
    topics = ['left/commands', *(arm.state_topic for arm in profile.arms)]
    assert wait(lambda: all(operator.heard[topic] for topic in topics))
    start = operator.pose(profile)

    def moved():
        return np.abs(operator.pose(profile) - start).max() > 0.15

    assert wait(moved), 'a random policy moves somewhere'
    # A policy that dies in the middle leaves arms that hold.
    policy.process.kill()
    operator.live(ALOHA.chunk * ALOHA.step + 0.5, wait)
    before = np.array(operator.last('left/commands').data)
    count = len(operator.heard['left/commands'])
    assert wait(lambda: len(operator.heard['left/commands']) > count + 10)
    np.testing.assert_array_equal(operator.last('left/commands').data, before)
    commands = np.array([message.data for message in operator.heard['left/commands']])
    assert np.isfinite(commands).all()
    limits = profile.velocity[:6] * 2 / profile.control_rate + 1e-9
    assert (np.abs(np.diff(commands[:, :6], axis=0)) <= limits).all()
    for process in (arms, simulator):
        process.process.send_signal(signal.SIGINT)
        assert process.wait() == 0, ''.join(process.lines)
