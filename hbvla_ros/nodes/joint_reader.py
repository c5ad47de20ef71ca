# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Joint states of all arms: the newest pose, its age, and the pose at a past stamp."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from hbvla_ros.control.arm_streams import ArmStreams
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.diagnostics import RateMeter

Vector = NDArray[np.float64]


class JointReader:
    """Subscribes to every arm's joint states on behalf of a node.

    Poses are in action order (see :mod:`hbvla_ros.control.profile`).

    Attributes:
        refused: how many messages could not be read.
        refusal: what was wrong with the last of them, empty before the first.
    """

    def __init__(self, node: Node, profile: RobotProfile) -> None:
        """Subscribe; best effort, so that it hears drivers of either reliability."""
        self._node = node
        self.streams = ArmStreams(profile)
        self.rate = RateMeter()
        self.refused, self.refusal = 0, ''
        quality = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            node.create_subscription(
                JointState, arm.state_topic, partial(self._receive, index), quality
            )
            for index, arm in enumerate(profile.arms)
        ]

    def _receive(self, index: int, message: JointState) -> None:
        stamp = to_seconds(message.header.stamp)
        try:
            self.streams.add(index, message, stamp, time.monotonic(), self._node_time())
        except HbvlaError as error:
            self.refused, self.refusal = self.refused + 1, str(error)
            self._node.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        self.rate.tick()

    def age(self) -> float:
        """Seconds since the arm heard longest ago was heard, infinite before the first.

        On a robot this is monotonic time and nothing else. In simulated time a slow simulator
        sends seldom, so there the smaller of monotonic and simulated age counts.
        """
        return self.streams.age(*self.times())

    def problem(self) -> str:
        """Why nothing may be made of the joint states now, empty if something may."""
        return self.streams.problem(*self.times())

    def times(self) -> tuple[float, float, bool]:
        """Monotonic time in s, the node's time in s, and whether the latter is simulated."""
        simulated = bool(self._node.get_clock().ros_time_is_active)
        return time.monotonic(), self._node_time(), simulated

    def _node_time(self) -> float:
        return float(self._node.get_clock().now().nanoseconds) * 1e-9

    def newest(self) -> Vector | None:
        """The newest pose (A,), None while an arm has not been heard."""
        return self.streams.newest()

    def at(self, stamp: float) -> tuple[Vector | None, str]:
        """The pose measured nearest to an image's ``stamp`` in s, if it is near enough.

        Returns:
            The pose (A,) and an empty text, or None and what is wrong.
        """
        return self.streams.at(stamp)

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
