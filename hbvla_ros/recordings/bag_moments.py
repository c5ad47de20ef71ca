# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The moments of a bag at which the policy node would have started an inference.

Messages come in the order they were recorded in and meet the rules of
:mod:`hbvla_ros.control.alignment`, which the node goes by. Where the node looks a hundred times a
second, this looks after every message. Time is when a message was recorded, or ``/clock`` where
the bag has one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.alignment import (
    add_sample,
    frames_problem,
    observed_pose,
    pose_at,
    pose_history,
    pose_tolerance,
    reference_stamp,
    sample_age,
)
from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]


class Place(NamedTuple):
    """Where a message lies: its topic, its time in ns, and which it is of those of that time."""

    topic: str
    time: int
    number: int


@dataclass(frozen=True)
class Moment:
    """One observation, images still in the bag.

    Attributes:
        stamp: time of the reference image in s.
        pose: float64 (P,) at that time, joints in rad and grippers as ratios.
        instruction: task in words.
        images: camera to the place of its message.
    """

    stamp: float
    pose: Vector
    instruction: str
    images: dict[str, Place]


class _Sample(NamedTuple):
    stamp: float
    received: float
    node_time: float
    pose: Vector


class MomentFinder:
    """Takes the messages of a bag one after the other and notes the moments."""

    def __init__(
        self,
        profile: RobotProfile,
        cameras: Sequence[CameraProfile],
        simulated: bool,
        instruction: str,
    ) -> None:
        """Start before the first message.

        Args:
            profile: arms, watchdog times and skew.
            cameras: those of the policy.
            simulated: time is ``/clock``.
            instruction: in force until the bag tells another; empty for none.
        """
        self._profile, self._simulated = profile, simulated
        self._stamps: dict[str, float | None] = {camera.name: None for camera in cameras}
        self._places: dict[str, Place] = {}
        kept = pose_history(profile)
        self._samples: list[deque[_Sample]] = [deque(maxlen=kept) for _ in profile.arms]
        self._topics = [arm.state_topic for arm in profile.arms]
        self._tolerance = pose_tolerance(profile)
        # Due whenever there is something new to see.
        self._schedule = InferenceSchedule(0.0)
        self._instruction = instruction.strip()
        self._clock = 0.0
        self._refusal = ''
        self._problem = 'no image at all'
        self.moments: list[Moment] = []

    @property
    def problem(self) -> str:
        """Why there was no moment when there was last none."""
        unheard = not all(self._samples)
        return self._refusal if unheard and self._refusal else self._problem

    def clock(self, message: Any) -> None:
        """Take a rosgraph_msgs/Clock."""
        self._clock = seconds(message.clock)

    def instruct(self, message: Any) -> None:
        """Take a std_msgs/String with the task."""
        text = message.data.strip()
        if text != self._instruction:
            self._instruction = text
            self._schedule.forget()

    def joints(self, arms: Sequence[int], message: Any, recorded: float) -> None:
        """Take the joint states of some arms, recorded at a time in s."""
        for arm in arms:
            try:
                pose = observed_pose(self._profile.arms[arm], message)
            except HbvlaError as error:
                self._refusal = str(error)
                continue
            stamp, now = seconds(message.header.stamp), self._now(recorded)
            add_sample(self._samples[arm], _Sample(stamp, recorded, now, pose))
        self._look(recorded)

    def image(self, camera: CameraProfile, stamp: float, place: Place, recorded: float) -> None:
        """Take an image of a header stamp in s, recorded at a time in s."""
        self._stamps[camera.name] = stamp - camera.latency
        self._places[camera.name] = place
        self._look(recorded)

    def _now(self, recorded: float) -> float:
        return self._clock if self._simulated else recorded

    def _look(self, recorded: float) -> None:
        now = self._now(recorded)
        if not self._schedule.is_due(now):
            return
        moment, problem = self._moment(now, recorded)
        if problem:
            self._problem = problem
        if moment is not None:
            self._schedule.start(now, moment.stamp)
            self.moments.append(moment)

    def _moment(self, now: float, recorded: float) -> tuple[Moment | None, str]:
        if not self._instruction:
            return None, 'no instruction'
        for topic, samples in zip(self._topics, self._samples, strict=True):
            if not samples:
                return None, f'no joint states from {topic}'
        ages = [sample_age(s[-1], recorded, now, self._simulated) for s in self._samples]
        if max(ages) > self._profile.safety.joint_state_timeout:
            return None, f'no joint states for {max(ages):.2f} s'
        problem = frames_problem(self._stamps, now, self._profile.safety)
        if problem:
            return None, problem
        reference = reference_stamp(stamp for stamp in self._stamps.values() if stamp is not None)
        if not self._schedule.is_new(reference):
            return None, ''
        pose, problem = pose_at(self._topics, self._samples, reference, self._tolerance)
        if pose is None:
            return None, problem
        return Moment(reference, pose, self._instruction, dict(self._places)), ''


def seconds(stamp: Any) -> float:
    """Seconds of a builtin_interfaces/Time."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9
