# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Joint states of all arms: the newest pose, its age, and the pose at a past stamp."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from hbvla_ros.control.alignment import (
    add_sample,
    observed_pose,
    pose_at,
    pose_history,
    pose_tolerance,
    sample_age,
)
from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.diagnostics import RateMeter

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class _Sample:
    stamp: float
    received: float  # monotonic
    node_time: float  # the node's clock at the same instant
    pose: Vector


class JointReader:
    """Subscribes to every arm's joint states on behalf of a node.

    Poses are in action order (see :mod:`hbvla_ros.control.profile`).
    """

    def __init__(self, node: Node, profile: RobotProfile) -> None:
        """Subscribe; best effort, so that it hears drivers of either reliability."""
        self._node = node
        self._topics = [arm.state_topic for arm in profile.arms]
        self._skew = pose_tolerance(profile)
        self.rate = RateMeter()
        self.refused = 0
        kept = pose_history(profile)
        self._samples: list[deque[_Sample]] = [deque(maxlen=kept) for _ in profile.arms]
        quality = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            node.create_subscription(
                JointState, arm.state_topic, partial(self._receive, index, arm), quality
            )
            for index, arm in enumerate(profile.arms)
        ]

    def _receive(self, index: int, arm: ArmProfile, message: JointState) -> None:
        try:
            pose = observed_pose(arm, message)
        except HbvlaError as error:
            self.refused += 1
            self._node.get_logger().error(str(error), throttle_duration_sec=1.0)
            return
        stamp = to_seconds(message.header.stamp)
        sample = _Sample(stamp, time.monotonic(), self._node_time(), pose)
        add_sample(self._samples[index], sample)
        self.rate.tick()

    def age(self) -> float:
        """Seconds since the arm heard longest ago was heard, infinite before the first.

        On a robot this is monotonic time and nothing else. In simulated time a slow simulator
        sends seldom, so there the smaller of monotonic and simulated age counts.
        """
        if not all(self._samples):
            return float('inf')
        return max(self._age(samples[-1]) for samples in self._samples)

    def _age(self, sample: _Sample) -> float:
        simulated = self._node.get_clock().ros_time_is_active
        return sample_age(sample, time.monotonic(), self._node_time(), simulated)

    def _node_time(self) -> float:
        return float(self._node.get_clock().now().nanoseconds) * 1e-9

    def newest(self) -> Vector | None:
        """The newest pose (A,), None while an arm has not been heard."""
        if not all(self._samples):
            return None
        return np.concatenate([samples[-1].pose for samples in self._samples])

    def at(self, stamp: float) -> tuple[Vector | None, str]:
        """The pose measured nearest to an image's ``stamp`` in s, if it is near enough.

        Returns:
            The pose (A,) and an empty text, or None and what is wrong.
        """
        # A copy: the executor's thread may append while another one looks.
        samples = [tuple(samples) for samples in self._samples]
        return pose_at(self._topics, samples, stamp, self._skew)

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
