# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the nodes know after each message of a bag, by the rules of the live topics.

One state for all that reads bags: calibration looks for every moment that makes an observation,
a replay for those at which the policy node would have started an inference. Stamps, ages and
poses go by :mod:`hbvla_ros.control.alignment`, as they do in the nodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
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
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Aligned:
    """One observation's parts, images as they were given.

    Attributes:
        stamp: time of the reference image in s.
        pose: float64 (A,) at that time, joints in rad and grippers as ratios.
        instruction: task in words.
        images: camera to whatever stands for its newest image.
        stamps: camera to that image's time of exposure in s.
    """

    stamp: float
    pose: Vector
    instruction: str
    images: dict[str, Any]
    stamps: dict[str, float]


class _Sample(NamedTuple):
    stamp: float
    received: float
    node_time: float
    pose: Vector


class Ingest:
    """Takes messages one after the other; times are in s.

    ``received`` is a clock that never goes back: the monotonic one of a live node, the order of
    recording in a bag. ``clock`` is the robot's system clock at the same instant.
    """

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
            simulated: time is what :meth:`simulate` was told last.
            instruction: in force until a message tells another; empty for none.
        """
        self._profile, self._simulated = profile, simulated
        self._stamps: dict[str, float | None] = {camera.name: None for camera in cameras}
        self._images: dict[str, Any] = {}
        kept = pose_history(profile)
        self._samples: list[deque[_Sample]] = [deque(maxlen=kept) for _ in profile.arms]
        self._topics = [arm.state_topic for arm in profile.arms]
        self._tolerance = pose_tolerance(profile)
        self._simulated_time = 0.0
        self.instruction = instruction.strip()
        self.refused = 0
        self._refusal = ''

    @property
    def refusal(self) -> str:
        """What was wrong with the last refused joint states, while an arm is still unheard."""
        return '' if all(self._samples) else self._refusal

    def now(self, clock: float) -> float:
        """Time in s on the clock that stamps and commands go by."""
        return self._simulated_time if self._simulated else clock

    def simulate(self, now: float) -> None:
        """``/clock`` says it is so late, s."""
        self._simulated_time = now

    def instruct(self, text: str) -> bool:
        """Take the task in words; whether it is another one."""
        before, self.instruction = self.instruction, text.strip()
        return self.instruction != before

    def joints(self, arms: Sequence[int], message: Any, received: float, clock: float) -> None:
        """Take joint states that hold the joints of some arms."""
        stamp = seconds(message.header.stamp)
        for arm in arms:
            profile = self._profile.arms[arm]
            try:
                pose = observed_pose(profile, message)
            except HbvlaError as error:
                self.refused += 1
                self._refusal = str(error)
                continue
            # Without a stamp it stays without one, so that it is seen to have none.
            measured = stamp - profile.state_latency if stamp else 0.0
            sample = _Sample(measured, received, self.now(clock), pose)
            add_sample(self._samples[arm], sample)

    def image(self, camera: CameraProfile, stamp: float, image: Any) -> None:
        """Take an image of a header stamp in s; ``image`` is what stands for it later."""
        self._stamps[camera.name] = stamp - camera.latency
        self._images[camera.name] = image

    def newest(self) -> Vector | None:
        """The newest pose (A,), None while an arm has not been heard."""
        if not all(self._samples):
            return None
        return np.concatenate([samples[-1].pose for samples in self._samples])

    def joint_age(self, received: float, clock: float) -> float:
        """Age in s of the arm heard longest ago, infinite before the first."""
        if not all(self._samples):
            return float('inf')
        now = self.now(clock)
        return max(sample_age(s[-1], received, now, self._simulated) for s in self._samples)

    def align(
        self, received: float, clock: float, is_new: Callable[[float], bool]
    ) -> tuple[Aligned | None, str]:
        """The observation that could be made at this instant.

        Args:
            received: present time on the clock that never goes back.
            clock: the robot's system clock.
            is_new: whether images of a reference time show more than was seen before.

        Returns:
            The parts and an empty text; or None and what is wrong, which is nothing where there
            is only nothing new.
        """
        if not self.instruction:
            return None, 'no instruction'
        for topic, samples in zip(self._topics, self._samples, strict=True):
            if not samples:
                return None, f'no joint states from {topic}'
        age = self.joint_age(received, clock)
        if age > self._profile.safety.joint_state_timeout:
            return None, f'no joint states for {age:.2f} s'
        problem = frames_problem(self._stamps, self.now(clock), self._profile.safety)
        if problem:
            return None, problem
        stamps = {name: stamp for name, stamp in self._stamps.items() if stamp is not None}
        reference = reference_stamp(stamps.values())
        if not is_new(reference):
            return None, ''
        pose, problem = pose_at(self._topics, self._samples, reference, self._tolerance)
        if pose is None:
            return None, problem
        return Aligned(reference, pose, self.instruction, dict(self._images), stamps), ''


def seconds(stamp: Any) -> float:
    """Seconds of a builtin_interfaces/Time."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9
