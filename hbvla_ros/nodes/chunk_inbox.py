# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Action chunks from the wire into the chunk clock, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rclpy.node import Node
from rclpy.qos import QoSProfile
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.conversions import message_to_chunk


def ensemble_weight(value: float) -> float | None:
    """What the parameter ``temporal_ensemble`` means to a chunk clock; None is off.

    Raises:
        HbvlaError: a value between off (-1) and the smallest weight (0).
    """
    if value == -1.0:
        return None
    if not value >= 0.0:
        raise HbvlaError(
            f'parameter temporal_ensemble: {value:g} is neither -1 (off) nor a weight from 0 on, '
            'such as 0.01'
        )
    return value


class ChunkInbox:
    """Subscribes ``action_chunks`` on behalf of an arm node.

    Args:
        node: the arm node.
        profile: its robot.
        ensemble: weight of the average over chunks, None for the newest alone; see
            :class:`~hbvla_ros.control.clock.ChunkClock`.
        is_open: whether chunks are looked at at all.
        obstacle: gives the reason why none may be executed, empty if they may.

    Attributes:
        clock: the chunks that were accepted.
    """

    def __init__(
        self,
        node: Node,
        profile: RobotProfile,
        ensemble: float | None,
        is_open: Callable[[], bool],
        obstacle: Callable[[], str],
    ) -> None:
        """Subscribe."""
        self._node, self._profile = node, profile
        self._is_open, self._obstacle = is_open, obstacle
        safety, self._ensemble = profile.safety, ensemble
        self.clock = ChunkClock(profile.is_gripper, safety.blend, safety.max_future, ensemble)
        self._accepted = self._refused = 0
        self._refusal = ''
        self._last = time.monotonic()
        self._subscription = node.create_subscription(
            JointTrajectory, 'action_chunks', self._receive, QoSProfile(depth=5)
        )

    def begin(self) -> None:
        """Forget every chunk; the wait for the next begins now."""
        self.clock.flush()
        self._last = time.monotonic()

    def silent(self) -> float:
        """Seconds since the last chunk that was accepted."""
        return time.monotonic() - self._last

    def values(self) -> dict[str, object]:
        """What became of the chunks, for a report."""
        return {
            'chunks accepted': self._accepted,
            'chunks refused': self._refused,
            'last refusal': self._refusal,
            'chunk drained': self.clock.drained(self._now()),
            'clock jumps': self.clock.clock_jumps,
            'temporal ensemble': 'off' if self._ensemble is None else self._ensemble,
        }

    def _now(self) -> float:
        return float(self._node.get_clock().now().nanoseconds) * 1e-9

    def _receive(self, message: JointTrajectory) -> None:
        if not self._is_open():
            return
        try:
            chunk = message_to_chunk(message, self._profile.action_names)
        except HbvlaError as error:
            self._refuse(str(error))
            return
        if len(chunk.actions) == 0:
            self.clock.flush()
            return
        obstacle = self._obstacle()
        if obstacle:
            self._refuse(obstacle)
            return
        poses = self._profile.action_to_pose(chunk.actions)
        verdict = self.clock.offer(replace(chunk, actions=poses), self._now())
        if not verdict.accepted:
            self._refuse(verdict.reason)
            return
        self._accepted += 1
        self._last = time.monotonic()

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._refusal = reason
        self._node.get_logger().warning(f'chunk refused: {reason}', throttle_duration_sec=1.0)

    def destroy(self) -> None:
        """Remove the subscription."""
        self._node.destroy_subscription(self._subscription)
