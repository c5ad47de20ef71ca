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

from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters import observed_pose
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.diagnostics import RateMeter

Vector = NDArray[np.float64]

# Samples kept at least; a fast driver's reach back as far as an image may be old.
_HISTORY = 100


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
        # A driver that keeps its rate has a pose this near to every image.
        self._skew = profile.safety.image_skew + 1.0 / profile.joint_state_rate
        self.rate = RateMeter()
        self.refused = 0
        kept = max(_HISTORY, round(2.0 * profile.safety.image_timeout * profile.joint_state_rate))
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
        samples, stamp = self._samples[index], to_seconds(message.header.stamp)
        if samples and stamp < samples[-1].stamp:
            # The clock went back: older poses would now answer for the wrong time.
            samples.clear()
        samples.append(_Sample(stamp, time.monotonic(), self._node_time(), pose))
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
        age = time.monotonic() - sample.received
        if not self._node.get_clock().ros_time_is_active:
            return age
        simulated = self._node_time() - sample.node_time
        # Below zero the clock went back and says nothing about the sample.
        return min(age, simulated) if simulated >= 0.0 else age

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
        if not all(self._samples):
            return None, 'no joint states yet'
        poses = []
        for topic, samples in zip(self._topics, self._samples, strict=True):
            nearest = min(tuple(samples), key=lambda sample: abs(sample.stamp - stamp))
            if nearest.stamp == 0.0:
                return None, f'{topic} has no stamps: the driver must fill in header.stamp'
            apart = nearest.stamp - stamp
            if abs(apart) > self._skew:
                return None, (
                    f'{topic} is stamped {abs(apart):.3f} s {"after" if apart > 0 else "before"} '
                    f'the image, more than {self._skew:.3f} s: check the clocks of both drivers'
                )
            poses.append(nearest.pose)
        return np.concatenate(poses), ''

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
