# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the nodes know after each message of a bag, by the rules of the live topics.

One state for all that reads bags: calibration looks for every moment that makes an observation,
a replay for those at which the policy node would have started an inference. Stamps, ages and
poses go by :mod:`hbvla_ros.control.aligner`, as they do in the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.aligner import Aligned, Aligner
from hbvla_ros.control.arm_streams import ArmStreams
from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.control.streams import StreamCounters
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]


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
        self._simulated = simulated
        self._arms = ArmStreams(profile)
        self._aligner = Aligner(profile, cameras, self._arms)
        self._simulated_time = 0.0
        self.instruction = instruction.strip()
        self._refusal = ''

    @property
    def refusal(self) -> str:
        """What was wrong with the last refused joint states, while an arm is still unheard."""
        return '' if self._arms.are_heard else self._refusal

    @property
    def refused(self) -> int:
        """How many joint states were refused."""
        return sum(counters.undecodable for counters in self._arms.counters.values())

    @property
    def counters(self) -> dict[str, StreamCounters]:
        """What became of the messages of every camera and arm, by its name."""
        return {**self._aligner.cameras.counters, **self._arms.counters}

    @property
    def frozen(self) -> dict[str, float]:
        """Cameras that count as frozen, with the seconds their picture has been the same."""
        return self._aligner.cameras.frozen

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
            try:
                self._arms.add(arm, message, stamp, received, self.now(clock))
            except HbvlaError as error:
                self._refusal = str(error)

    def image(self, camera: CameraProfile, stamp: float, data: Any, image: Any) -> None:
        """Take an image of a header stamp in s.

        ``data`` are its undecoded bytes, ``image`` is what stands for it later.
        """
        self._aligner.image(camera, stamp, data, image)

    def newest(self) -> Vector | None:
        """The newest pose (A,), None while an arm has not been heard."""
        return self._arms.newest()

    def joint_problem(self, received: float, clock: float) -> str:
        """Why nothing may be made of the joint states now, empty if something may."""
        return self._arms.problem(received, self.now(clock), self._simulated)

    def lost(self, received: float, clock: float) -> str:
        """Why nothing is known of the present, empty if it is."""
        return self._aligner.lost(received, self.now(clock), self._simulated)

    def align(
        self, received: float, clock: float, is_new: Callable[[float], bool]
    ) -> tuple[Aligned | None, str]:
        """The observation that could be made at this instant.

        Args:
            received: present time on the clock that never goes back.
            clock: the robot's system clock.
            is_new: whether images of a reference time show more than was seen before.

        Returns:
            The parts, their frames holding what :meth:`image` was given, and an empty text; or
            None and what is wrong, which is nothing where there is only nothing new.
        """
        if not self.instruction:
            return None, 'no instruction'
        return self._aligner.observation(received, self.now(clock), self._simulated, is_new)


def seconds(stamp: Any) -> float:
    """Seconds of a builtin_interfaces/Time."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9
