# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Cameras, joints and an instruction in, action chunks out.

Callbacks only keep the newest message. When the present chunk is drained far enough and the
frames make one observation, one inference starts on the worker thread, which decodes, runs the
network and publishes. Nothing ever waits in a queue.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.latency import LatencyTracker
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.conversions import chunk_to_message, to_time
from hbvla_ros.nodes.frames import FrameReader
from hbvla_ros.nodes.inference import (
    Outcome,
    PolicyFactory,
    PolicyLike,
    Request,
    check_policy,
    infer,
    load_policy,
)
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.lifecycle import ManagedNode
from hbvla_ros.nodes.policy_parameters import TABLE
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.nodes.worker import Worker

NAME = 'policy_node'
# Leaves time for the rest of an exit within 2 s.
_CLOSE_TIMEOUT = 1.0


class PolicyNode(ManagedNode):
    """Runs one policy for one robot.

    Subscribes the profile's cameras and joint states, ``~/instruction`` and the latched
    ``instruction``; publishes ``action_chunks`` and ``~/heartbeat``.

    Args:
        make_policy: loads the policy from the parameter values; called on the worker thread.
        **options: see :class:`ManagedNode`.
    """

    def __init__(self, make_policy: PolicyFactory = load_policy, **options: Any) -> None:
        """Declare the parameters."""
        super().__init__(NAME, TABLE, **options)
        self._make_policy = make_policy
        self._entities: list[tuple[Any, Any]] = []
        self._worker: Worker | None = None
        self._job: Future[Outcome] | None = None
        # The gate: chunks leave the worker thread only while it is open and for this sequence
        # number, which every instruction and every (de)activation moves on.
        self._gate = threading.Lock()
        self._open, self._sequence = False, 0

    def configure(self) -> None:
        """Load and check the policy, then build everything that only listens."""
        values = self._values = self.parameters()
        self.profile = RobotProfile.load(values['robot'])
        self._worker = Worker('inference')
        self._policy: PolicyLike = self._worker.submit(lambda: self._make_policy(values)).result()
        cameras = check_policy(self._policy, self.profile)
        started = time.monotonic()
        self._worker.submit(self._policy.warmup).result()
        self.get_logger().info(
            f'checkpoint {self._policy.checkpoint}: warm-up {time.monotonic() - started:.2f} s'
        )
        self._instruction = values['instruction'].strip()
        self._latency, self._decoding = LatencyTracker(), LatencyTracker()
        self._chunk_rate = diagnostics.RateMeter()
        self._failures, self._failure = 0, ''
        self._problem, self._problem_since = '', 0.0
        self._schedule = InferenceSchedule(values['replan_fraction'], values['inference_period'])
        self._joints = JointReader(self, self.profile)
        self._frames = FrameReader(self, self.profile, cameras, self._joints, self._poll)
        self._reporter = diagnostics.Reporter(self, self.profile.robot)
        self._build_entities()

    def _build_entities(self) -> None:
        values = self._values
        self._chunks = self.create_publisher(JointTrajectory, 'action_chunks', QoSProfile(depth=5))
        self._heartbeats = self.create_publisher(Header, '~/heartbeat', 1)
        self._entities = [
            (self._chunks, self.destroy_publisher),
            (self._heartbeats, self.destroy_publisher),
        ]
        # People publish plainly, programs such as the simulator latched; a subscription of the one
        # kind misses the other's messages or their past, so each has its own topic.
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, quality in (('~/instruction', QoSProfile(depth=5)), ('instruction', latched)):
            subscription = self.create_subscription(
                String, topic, self._receive_instruction, quality
            )
            self._entities.append((subscription, self.destroy_subscription))
        for rate, callback in (
            (values['poll_rate'], self._poll),
            (values['heartbeat_rate'], self._beat),
            (values['diagnostics_rate'], self._report),
        ):
            timer = self.create_timer(1.0 / rate, callback, clock=self.steady_clock)
            self._entities.append((timer, self.destroy_timer))

    def activate(self) -> None:
        """Open the gate: inferences start as soon as there is an instruction."""
        self._flush()
        self._open = True

    def deactivate(self) -> None:
        """Close the gate and tell the arms to hold."""
        if self._open:
            self._open = False
            self._flush()

    def cleanup(self) -> None:
        """Remove what configure built and let go of the model."""
        while self._entities:
            entity, destroy = self._entities.pop()
            destroy(entity)
        for name in ('_joints', '_frames', '_reporter'):
            if hasattr(self, name):
                getattr(self, name).destroy()
                delattr(self, name)
        if self._worker is not None and not self._worker.close(_CLOSE_TIMEOUT):
            self.get_logger().warning('an inference is still running; it is abandoned')
        self._worker = self._job = None
        if hasattr(self, '_policy'):
            del self._policy

    def _receive_instruction(self, message: String) -> None:
        text = message.data.strip()
        if text == self._instruction:
            return
        self._instruction = text
        self.get_logger().info(f'instruction: {text!r}' if text else 'no instruction: holding')
        if self._open:
            self._flush()

    def _flush(self) -> None:
        """A chunk without rows: what the arms execute was made for something else."""
        stamp, checkpoint = self.now(), self._policy.checkpoint
        nothing = np.empty((0, len(self.profile.action_names)))
        flush = ActionChunk(nothing, stamp, 1.0, stamp, self._instruction, checkpoint)
        with self._gate:
            self._sequence += 1
            self._schedule.forget()
            self._chunks.publish(chunk_to_message(flush, self.profile.action_names))

    def _poll(self) -> None:
        """Collect a finished inference and start the next one when it is due."""
        if self._job is not None:
            if not self._job.done():
                return
            job, self._job = self._job, None
            self._finish(job)
        if not self._open or not self._instruction or self._worker is None:
            return
        now = self.now()
        if not self._schedule.is_due(now):
            return
        request, problem = self._request()
        if problem and not self._problem:
            self._problem_since = time.monotonic()
        self._problem = problem
        if request is None:
            return
        self._schedule.start(now, request.aligned.stamp)
        policy, sequence = self._policy, self._sequence
        self._job = self._worker.submit(lambda: self._act(policy, request, sequence))

    def _request(self) -> tuple[Request | None, str]:
        """What to infer from, or why there is nothing."""
        aligned, problem = self._frames.observation(self._schedule.is_new)
        if aligned is None:
            return None, problem
        return Request(aligned, self._frames.cameras, self._instruction), ''

    def _act(self, policy: PolicyLike, request: Request, sequence: int) -> Outcome:
        """On the worker thread: infer, and publish at once unless the world has moved on."""
        outcome = infer(policy, self.profile, request)
        message = chunk_to_message(outcome.chunk, self.profile.action_names)
        with self._gate:
            if self._open and sequence == self._sequence:
                self._chunks.publish(message)
                self._schedule.accept(outcome.chunk)
        return outcome

    def _finish(self, job: Future[Outcome]) -> None:
        error = job.exception()
        if error is not None:
            self._failures += 1
            self._failure = str(error) if isinstance(error, HbvlaError) else repr(error)
            self.get_logger().error(f'inference failed: {self._failure}', throttle_duration_sec=1.0)
            return
        self._failure = ''
        outcome = job.result()
        self._latency.add(outcome.decoding + outcome.acting)
        self._decoding.add(outcome.decoding)
        self._chunk_rate.tick()

    def _beat(self) -> None:
        self._heartbeats.publish(Header(stamp=to_time(self.now()), frame_id=self.state_label))

    def _too_slow(self) -> str:
        platform, latency = self._policy.platform, self._latency.percentile(95)
        rest = (1.0 - self._values['replan_fraction']) * platform.chunk * platform.step
        if latency is None or latency < rest:
            return ''
        return f'inference takes {latency:.2f} s, the rest of a chunk only {rest:.2f} s'

    def _report(self) -> None:
        now = self.now()
        level, text = diagnostics.OK, self.state_label
        if self._open and not self._instruction:
            text = 'active, waiting for an instruction'
        # Cameras never arrive together to the millisecond: only what lasts is worth a word.
        lasting = time.monotonic() - self._problem_since > self.profile.safety.image_timeout
        problem = self._failure or (self._problem if lasting else '') or self._too_slow()
        if self._open and problem:
            level, text = diagnostics.WARN, problem
        values = {
            'state': self.state_label,
            'checkpoint': self._policy.checkpoint,
            'instruction': self._instruction,
            'inferences failed': self._failures,
            'chunk rate': self._chunk_rate.read(),
            'latency p50': self._latency.percentile(50),
            'latency p95': self._latency.percentile(95),
            'decoding p95': self._decoding.percentile(95),
            'joint state age': self._joints.age(),
            'joint state rate': self._joints.rate.read(),
        }
        for name, age in self._frames.streams.ages(now).items():
            values[f'{name} age'] = age
            values[f'{name} rate'] = self._frames.rates[name].read()
        self._reporter.publish(level, text, values, now)


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, PolicyNode)


if __name__ == '__main__':
    main()
