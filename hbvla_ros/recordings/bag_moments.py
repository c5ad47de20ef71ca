# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The moments of a bag at which the policy node would have started an inference.

Messages come in the order they were recorded in and meet the rules of the live topics
(:mod:`hbvla_ros.recordings.bag_ingest`). Where the node looks a hundred times a second, this looks
after every message. Time is when a message was recorded, or ``/clock`` where the bag has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.recordings.bag_ingest import Ingest, seconds

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


class MomentFinder:
    """Takes the messages of a bag one after the other and notes the moments."""

    def __init__(
        self,
        profile: RobotProfile,
        cameras: Sequence[CameraProfile],
        simulated: bool,
        instruction: str,
    ) -> None:
        """Start before the first message; the arguments are those of :class:`Ingest`."""
        self._ingest = Ingest(profile, cameras, simulated, instruction)
        # Due whenever there is something new to see.
        self._schedule = InferenceSchedule(0.0)
        self._problem = 'no image at all'
        self.moments: list[Moment] = []

    @property
    def problem(self) -> str:
        """Why there was no moment when there was last none."""
        return self._ingest.refusal or self._problem

    def clock(self, message: Any) -> None:
        """Take a rosgraph_msgs/Clock."""
        self._ingest.simulate(seconds(message.clock))

    def instruct(self, message: Any) -> None:
        """Take a std_msgs/String with the task."""
        if self._ingest.instruct(message.data):
            self._schedule.forget()

    def joints(self, arms: Sequence[int], message: Any, recorded: float) -> None:
        """Take the joint states of some arms, recorded at a time in s."""
        self._ingest.joints(arms, message, recorded, recorded)
        self._look(recorded)

    def image(self, camera: CameraProfile, message: Any, place: Place, recorded: float) -> None:
        """Take an image message, recorded at a time in s; it lies at ``place`` in the bag."""
        stamp = seconds(message.header.stamp)
        self._ingest.image(camera, stamp, message.data, place)
        self._look(recorded)

    def _look(self, recorded: float) -> None:
        now = self._ingest.now(recorded)
        if not self._schedule.is_due(now):
            return
        found, problem = self._ingest.align(recorded, recorded, self._schedule.is_new)
        if problem:
            self._problem = problem
        if found is not None:
            self._schedule.start(now, found.stamp)
            places = {name: frame.payload for name, frame in found.frames.items()}
            self.moments.append(Moment(found.stamp, found.pose, self._ingest.instruction, places))
