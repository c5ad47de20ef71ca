# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Everything on the command topics, on one monotonic clock, and what led to it."""

from __future__ import annotations

import time
import zlib
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.wire import FORM, Beat, Command, Violation, WireCheck
from hbvla_ros.nodes.adapters import make_adapter
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.faults.canary import TOPIC as CANARY
from hbvla_ros.nodes.faults.intruder import is_intrusion

# A minute of commands and of beats, and the latest of the rest.
_COMMANDS, _BEATS, _CHUNKS, _REPORTS = 1500, 3000, 50, 300
_DEPTH = 500


@dataclass
class Heard:
    """What came of one stream: when the newest message, and when the last that was worth it."""

    newest: float = -np.inf
    valid: float = -np.inf


@dataclass(frozen=True)
class SeenChunk:
    """An action chunk: when it came, how many rows, when the last of them is due.

    ``outside`` is whether it sends a joint out of the limits.
    """

    received: float
    rows: int
    end: float
    outside: bool


@dataclass(frozen=True)
class Report:
    """One status of a node: when it came, its level, its line, and its values by name."""

    received: float
    node: str
    level: int
    message: str
    values: dict[str, str]


class Recorder:
    """Listens on behalf of a node.

    Args:
        node: whose subscriptions they are; somebody has to spin it.
        profile: the robot.
        time_scale: seconds of the robot's time a second.

    Attributes:
        commands: of each arm, the latest.
        checks: of each arm, over all of its commands.
        violations: everything that must never be on the wire.
        beats: of the canary.
        chunks: what the policy sent.
        reports: what the nodes said on /diagnostics.
        camera, joints: of the first camera and the first arm; a picture is valid if it is not the
            one before, joint states if they have the profile's names.
        intruded: when the first command of an intruder came, infinite before.
    """

    def __init__(self, node: Node, profile: RobotProfile, time_scale: float = 1.0) -> None:
        """Subscribe."""
        self._node, self.profile, self._scale = node, profile, time_scale
        self.commands: list[deque[Command]] = [deque(maxlen=_COMMANDS) for _ in profile.arms]
        arms = range(len(profile.arms))
        self.checks = [WireCheck(profile, index, time_scale) for index in arms]
        self.violations: list[Violation] = []
        self.beats: deque[Beat] = deque(maxlen=_BEATS)
        self.chunks: deque[SeenChunk] = deque(maxlen=_CHUNKS)
        self.reports: deque[Report] = deque(maxlen=_REPORTS)
        self.camera, self.joints = Heard(), Heard()
        self.intruded = np.inf
        self._picture = -1
        bounds = profile.pose_to_action(np.stack([profile.lower, profile.upper]))
        self._lower, self._upper = np.sort(bounds, axis=0) + np.array([[-1e-6], [1e-6]])
        self._adapters = [make_adapter(arm) for arm in profile.arms]
        for index, (arm, adapter) in enumerate(zip(profile.arms, self._adapters, strict=True)):
            self._listen(
                adapter.message_type, arm.command_topic, partial(self._receive_command, index)
            )
        self._listen(Float64MultiArray, CANARY, self._receive_beat)
        self._listen(JointTrajectory, 'action_chunks', self._receive_chunk)
        self._listen(DiagnosticArray, '/diagnostics', self._receive_reports)
        camera = profile.cameras[0]
        kind = Image if camera.type == 'raw' else CompressedImage
        quality = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(kind, camera.topic, self._receive_image, quality)
        node.create_subscription(
            JointState, profile.arms[0].state_topic, self._receive_joints, quality
        )

    def _listen(self, kind: Any, topic: str, receive: Any) -> None:
        self._node.create_subscription(kind, topic, receive, _DEPTH)

    def _receive_command(self, arm: int, message: Any, info: dict[str, Any]) -> None:
        received = time.monotonic()
        try:
            values = self._adapters[arm].values(message)
        except HbvlaError as error:
            self.violations.append(Violation(FORM, str(error), received))
            return
        # Not `parse`: what is not finite is to be seen here, not refused.
        ratio = self.profile.arms[arm].command.to_ratio(values[-1])
        pose = np.append(values[:-1], ratio)
        if is_intrusion(message):
            self.intruded = min(self.intruded, received)
            self.checks[arm].somebody_else(pose)
            return
        sent = info['source_timestamp'] * 1e-9 - (time.time() - time.monotonic())
        number = info['publication_sequence_number'] or 0
        command = Command(received, sent, number, pose)
        self.violations += self.checks[arm].add(command)
        self.commands[arm].append(command)

    def _receive_beat(self, message: Float64MultiArray) -> None:
        number, sent = message.data
        self.beats.append(Beat(int(number), sent, time.monotonic()))

    def _receive_chunk(self, message: JointTrajectory) -> None:
        received, rows = time.monotonic(), len(message.points)
        start = to_seconds(message.header.stamp)
        last = to_seconds(message.points[-1].time_from_start) if rows else 0.0
        now = float(self._node.get_clock().now().nanoseconds) * 1e-9
        poses = np.array([point.positions for point in message.points])
        inside = (poses >= self._lower) & (poses <= self._upper) if rows else np.array(True)
        end = received + (start + last - now) / self._scale
        self.chunks.append(SeenChunk(received, rows, end, not inside.all()))

    def _receive_reports(self, message: DiagnosticArray) -> None:
        received = time.monotonic()
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            level = int.from_bytes(status.level, 'little')
            node = status.name.rpartition('/')[2]
            self.reports.append(Report(received, node, level, status.message, values))

    def _receive_image(self, message: CompressedImage | Image) -> None:
        self.camera.newest = time.monotonic()
        picture = zlib.crc32(message.data)
        if picture != self._picture:
            self._picture, self.camera.valid = picture, self.camera.newest

    def _receive_joints(self, message: JointState) -> None:
        self.joints.newest = time.monotonic()
        if set(self.profile.arms[0].names) <= set(message.name):
            self.joints.valid = self.joints.newest

    def of(self, node: str, since: float = -np.inf) -> list[Report]:
        """Reports of a node that came after a time, the newest last."""
        found = [report for report in list(self.reports) if report.node == node]
        return [report for report in found if report.received > since]
