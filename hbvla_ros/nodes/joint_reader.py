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

# At 200 Hz half a second: longer than any image is on its way.
_HISTORY = 100


@dataclass(frozen=True)
class _Sample:
    stamp: float
    received: float
    pose: Vector


class JointReader:
    """Subscribes to every arm's joint states on behalf of a node.

    Poses are in action order (see :mod:`hbvla_ros.control.profile`).
    """

    def __init__(self, node: Node, profile: RobotProfile) -> None:
        """Subscribe; best effort, so that it hears drivers of either reliability."""
        self._node = node
        self.rate = RateMeter()
        self.refused = 0
        self._samples: list[deque[_Sample]] = [deque(maxlen=_HISTORY) for _ in profile.arms]
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
        samples.append(_Sample(stamp, time.monotonic(), pose))
        self.rate.tick()

    def age(self) -> float:
        """Seconds since the arm heard longest ago was heard, infinite before the first."""
        if not all(self._samples):
            return float('inf')
        return time.monotonic() - min(samples[-1].received for samples in self._samples)

    def newest(self) -> Vector | None:
        """The newest pose (A,), None while an arm has not been heard."""
        if not all(self._samples):
            return None
        return np.concatenate([samples[-1].pose for samples in self._samples])

    def at(self, stamp: float) -> Vector | None:
        """The pose (A,) measured nearest to ``stamp`` in s, None while an arm is unheard."""
        if not all(self._samples):
            return None
        nearest = [min(tuple(s), key=lambda x: abs(x.stamp - stamp)) for s in self._samples]
        return np.concatenate([sample.pose for sample in nearest])

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
