# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Listens to a running graph and keeps what an episode needs: motion, chunks, latencies."""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters import CommandAdapter, make_adapter
from hbvla_ros.nodes.conversions import to_seconds

Vector = NDArray[np.float64]
_NANOSECONDS = 1_000_000_000
# Images whose arrival is remembered: at 25 Hz four seconds, longer than any chunk takes.
_IMAGES = 100
# Messages of one topic that may wait: on a machine with other work this program is held up, and
# a motion must not have holes for it. At 50 Hz ten seconds.
_WAITING = 500
# Between two stamps of one instant that were rounded differently, s.
_ROUNDING = 1e-3


class EpisodeRecorder:
    """Subscribes to the robot's topics and to the chunks on behalf of a node.

    Attributes:
        clock: simulated time in s as last heard, 0 before.
        clock_heard: monotonic time at which it was heard.
        chunks: chunks with rows since :meth:`clear`.
        latencies: seconds from the arrival of the images a chunk was made from, here, to the
            arrival of the chunk, here: decoding, inference and twice the way over DDS.
    """

    def __init__(self, node: Node, profile: RobotProfile) -> None:
        """Subscribe, best effort, so that nothing the robot does waits for this program."""
        self._node, self._profile = node, profile
        self.clock, self.clock_heard = 0.0, time.monotonic()
        self._arrivals: OrderedDict[int, float] = OrderedDict()
        self._newest = dict.fromkeys((arm.name for arm in profile.arms), 0.0)
        self.clear()
        quality = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
        motion = QoSProfile(depth=_WAITING, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(ClockMessage, '/clock', self._receive_clock, quality)
        node.create_subscription(JointTrajectory, 'action_chunks', self._receive_chunk, quality)
        camera = profile.cameras[0]
        kind = CompressedImage if camera.type == 'compressed' else Image
        node.create_subscription(kind, camera.topic, self._receive_image, quality)
        first = 0
        for arm in profile.arms:
            part, adapter = slice(first, first + len(arm.names)), make_adapter(arm)
            first = part.stop
            node.create_subscription(
                JointState, arm.state_topic, partial(self._receive_joints, arm, part), motion
            )
            node.create_subscription(
                adapter.message_type,
                arm.command_topic,
                partial(self._receive_command, adapter, part),
                motion,
            )

    def clear(self) -> None:
        """Forget motion and chunks; an episode begins."""
        self.chunks = 0
        self.latencies: list[float] = []
        self._poses: dict[int, Vector] = {}
        self._commands: list[tuple[float, slice, Vector]] = []

    def has_heard_until(self, end: float) -> bool:
        """Whether the joint states of every arm have been heard up to the time ``end`` in s."""
        return min(self._newest.values()) >= end - _ROUNDING

    def trace(self, start: float, end: float) -> dict[str, NDArray[np.float64]]:
        """Motion at the times of the joint states, and the commands one by one.

        Args:
            start: first time in s that counts.
            end: last one.

        Returns:
            ``times`` (T,) since ``start``, ``commands`` (T, A) in force, ``positions`` (T, A)
            measured, ``sent`` (N, A) and ``control_period`` in s.

        Raises:
            HbvlaError: no joint states in between.
        """
        rows = {
            stamp / _NANOSECONDS: pose
            for stamp, pose in sorted(self._poses.items())
            if np.isfinite(pose).all() and start - 1e-6 <= stamp / _NANOSECONDS <= end + 1e-6
        }
        if not rows:
            raise HbvlaError(f'{self._profile.arms[0].state_topic}: no joint states were heard')
        times, positions = np.array(list(rows)), np.stack(list(rows.values()))
        # Until the first command the robot keeps the pose it starts in.
        command = positions[0].copy()
        waiting = [one for one in self._commands if one[0] >= start - 1e-6]
        commands = np.empty_like(positions)
        for index, now in enumerate(times):
            while waiting and waiting[0][0] <= now + 1e-6:
                _, part, values = waiting.pop(0)
                command[part] = values
            commands[index] = command
        return {
            'times': times - start,
            'commands': commands,
            'positions': positions,
            'sent': self._sent(start, end),
            'control_period': np.array(1.0 / self._profile.control_rate),
        }

    def _sent(self, start: float, end: float) -> NDArray[np.float64]:
        """The commands of all arms side by side (N, A), as many as every arm got."""
        of_arms: dict[int, list[Vector]] = {}
        first = 0
        for arm in self._profile.arms:
            of_arms[first] = []
            first += len(arm.names)
        for now, part, values in self._commands:
            if start - 1e-6 <= now <= end + 1e-6:
                of_arms[part.start].append(values)
        count = min(len(values) for values in of_arms.values())
        return np.hstack([np.reshape(values[:count], (count, -1)) for values in of_arms.values()])

    def _receive_clock(self, message: ClockMessage) -> None:
        self.clock, self.clock_heard = to_seconds(message.clock), time.monotonic()

    def _receive_image(self, message: CompressedImage | Image) -> None:
        self._arrivals[_nanoseconds(message)] = time.perf_counter()
        if len(self._arrivals) > _IMAGES:
            self._arrivals.popitem(last=False)

    def _receive_chunk(self, message: JointTrajectory) -> None:
        if not message.points:
            return
        self.chunks += 1
        arrived = self._arrivals.get(_nanoseconds(message))
        if arrived is not None:
            self.latencies.append(time.perf_counter() - arrived)

    def _receive_joints(self, arm: ArmProfile, part: slice, message: JointState) -> None:
        try:
            values = observed_pose(arm, message)
        except HbvlaError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        size = len(self._profile.action_names)
        pose = self._poses.setdefault(_nanoseconds(message), np.full(size, np.nan))
        pose[part] = values
        self._newest[arm.name] = to_seconds(message.header.stamp)

    def _receive_command(self, adapter: CommandAdapter, part: slice, message: Any) -> None:
        try:
            self._commands.append((self.clock, part, adapter.parse(message)))
        except HbvlaError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=1.0)


def _nanoseconds(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)
