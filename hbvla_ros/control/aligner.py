# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Cameras and arms of one robot, and the observation that could be made of them now.

The policy node feeds it from live topics, the readers of bags from recorded ones, message by
message: a bag gives what the robot saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.alignment import measured_at, reference_stamp
from hbvla_ros.control.arm_streams import ArmStreams
from hbvla_ros.control.camera_streams import CameraStreams, Frame, content_digest
from hbvla_ros.control.profile import CameraProfile, RobotProfile

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Aligned:
    """What one observation is made of.

    Attributes:
        stamp: time of the reference image in s.
        pose: float64 (A,) at that time, joints in rad and grippers as ratios.
        frames: camera to its image, still undecoded.
    """

    stamp: float
    pose: Vector
    frames: Mapping[str, Frame]


class Aligner:
    """Takes images and finds the moments at which there is an observation.

    Args:
        profile: latencies, oldest ages and largest skew.
        cameras: those of the policy.
        arms: joint states, fed by whoever made them.
    """

    def __init__(
        self, profile: RobotProfile, cameras: Sequence[CameraProfile], arms: ArmStreams
    ) -> None:
        """Start without images."""
        self.cameras, self.arms = CameraStreams(profile, cameras), arms

    def image(self, camera: CameraProfile, stamp: float, data: Any, payload: Any) -> bool:
        """Take an image.

        Args:
            camera: whose it is.
            stamp: of its header, in s; the camera's latency is taken off here.
            data: its undecoded bytes.
            payload: comes back with the observation.

        Returns:
            Whether it is the camera's newest now.
        """
        exposed = measured_at(stamp, camera.latency)
        pose, _ = self.arms.at(exposed)
        return self.cameras.add(camera.name, exposed, content_digest(data), pose, payload)

    def lost(self, received: float, now: float, simulated: bool) -> str:
        """Why nothing is known of the present, empty if it is; arguments as of `observation`."""
        return self.arms.problem(received, now, simulated) or self.cameras.lost(now)

    def observation(
        self, received: float, now: float, simulated: bool, is_new: Callable[[float], bool]
    ) -> tuple[Aligned | None, str]:
        """The observation that can be made at this instant.

        Args:
            received: present time in s on a clock that never goes back.
            now: present time in s on the clock of stamps and commands.
            simulated: whether the latter is simulated.
            is_new: whether images of a reference time in s show more than was seen before.

        Returns:
            The parts and an empty text; or None and what is wrong, which is nothing where there
            is only nothing new.
        """
        problem = self.arms.problem(received, now, simulated)
        if problem:
            return None, problem
        frames, problem = self.cameras.observation(now)
        if problem:
            return None, problem
        reference = reference_stamp(frame.stamp for frame in frames.values())
        if not is_new(reference):
            return None, ''
        pose, problem = self.arms.use(reference)
        if pose is None:
            return None, problem
        self.cameras.use(frames)
        return Aligned(reference, pose, frames), ''
