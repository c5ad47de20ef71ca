# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What was heard of the arms lately: the newest pose, its age, and the pose at a past time.

Without ROS and without a clock of its own, so that live joint states and those of a recorded bag
go through the same lines.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.alignment import (
    add_sample,
    measured_at,
    observed_pose,
    pose_at,
    pose_history,
    pose_tolerance,
    sample_age,
)
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.streams import StreamCounters
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]


class _Sample(NamedTuple):
    stamp: float
    received: float
    node_time: float
    pose: Vector


class ArmStreams:
    """Keeps the joint states of all arms of one robot.

    Poses are in action order (see :mod:`hbvla_ros.control.profile`). Times are in s: stamps and
    ``node_time`` on the commands' clock, ``received`` on one that never goes back.
    """

    def __init__(self, profile: RobotProfile) -> None:
        """Start without joint states."""
        self._arms, self._safety = profile.arms, profile.safety
        self._topics = [arm.state_topic for arm in profile.arms]
        self._tolerance = pose_tolerance(profile)
        kept = pose_history(profile)
        self._samples: list[deque[_Sample]] = [deque(maxlen=kept) for _ in profile.arms]
        self.counters = {arm.name: StreamCounters() for arm in profile.arms}

    def add(
        self, index: int, message: Any, stamp: float, received: float, node_time: float
    ) -> None:
        """Take a sensor_msgs/JointState of an arm.

        Args:
            index: which arm of the profile.
            message: its fields ``name`` and ``position`` are read.
            stamp: its header's stamp; the arm's latency is taken off here.
            received: when it arrived.
            node_time: the commands' clock when it arrived.

        Raises:
            HbvlaError: a joint is missing or a position is not finite.
        """
        arm = self._arms[index]
        counters, samples = self.counters[arm.name], self._samples[index]
        counters.received += 1
        try:
            pose = observed_pose(arm, message)
        except HbvlaError:
            counters.undecodable += 1
            raise
        stamp = measured_at(stamp, arm.state_latency)
        if samples and stamp < samples[-1].stamp:
            counters.out_of_order += 1
        add_sample(samples, _Sample(stamp, received, node_time, pose))

    @property
    def are_heard(self) -> bool:
        """Whether every arm has been heard."""
        return all(self._samples)

    def age(self, received: float, node_time: float, simulated: bool) -> float:
        """Seconds since the arm heard longest ago was heard, infinite before the first."""
        if not self.are_heard:
            return float('inf')
        ages = [sample_age(s[-1], received, node_time, simulated) for s in self._samples]
        return max(ages)

    def problem(self, received: float, node_time: float, simulated: bool) -> str:
        """Why nothing may be made of the joint states now, empty if something may."""
        for topic, samples in zip(self._topics, self._samples, strict=True):
            if not samples:
                return f'no joint states from {topic}'
        worst, text = self._safety.joint_state_timeout, ''
        for arm, samples in zip(self._arms, self._samples, strict=True):
            age = sample_age(samples[-1], received, node_time, simulated)
            if age > self._safety.joint_state_timeout:
                self.counters[arm.name].count_once('too_old', samples[-1])
            if age > worst:
                worst, text = age, f'no joint states for {age:.2f} s from {arm.state_topic}'
        return text

    def newest(self) -> Vector | None:
        """The newest pose (A,), None while an arm has not been heard."""
        if not self.are_heard:
            return None
        return np.concatenate([samples[-1].pose for samples in self._samples])

    def at(self, stamp: float) -> tuple[Vector | None, str]:
        """The pose measured nearest to an image's ``stamp``, if it is near enough.

        Returns:
            The pose (A,) and an empty text, or None and what is wrong.
        """
        # A copy: the executor's thread may append while another one looks.
        samples = [tuple(samples) for samples in self._samples]
        return pose_at(self._topics, samples, stamp, self._tolerance)

    def use(self, stamp: float) -> tuple[Vector | None, str]:
        """As :meth:`at`, for an observation that is made of it: counted as used or skewed."""
        pose, problem = self.at(stamp)
        for arm, samples in zip(self._arms, self._samples, strict=True):
            if not samples:
                continue
            nearest = min(samples, key=lambda sample: abs(sample.stamp - stamp))
            if abs(nearest.stamp - stamp) > self._tolerance:
                self.counters[arm.name].count_once('skewed', nearest)
            elif pose is not None:
                self.counters[arm.name].count_once('used', nearest)
        return pose, problem
