# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From aligned streams to one chunk, and whether a policy fits a robot at all.

The policy node and the replay of bags ask their policy through these lines; they differ in how
they decode images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.aligner import Aligned
from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.data import ActionChunk, Observation
from hbvla_ros.errors import HbvlaError

# An image message and the camera's colour order to RGB (H, W, 3).
Decoder = Callable[[Any, str], NDArray[np.uint8]]

# A step is often a rounded fraction, such as 0.033 for 30 Hz.
_RATE_TOLERANCE = 0.02


class PolicyLike(Protocol):
    """What the node needs of a policy; :class:`hbvla_ros.policy.Policy` has it."""

    @property
    def platform(self) -> Any:
        """Platform constants: robot, cameras, action_dim, proprio_dim, step, chunk."""

    @property
    def checkpoint(self) -> str:
        """Identity of the checkpoint."""

    def act(self, observation: Observation) -> ActionChunk:
        """One chunk."""

    def warmup(self) -> Any:
        """Run once, so that the first real inference is not the slow one."""


class UndecodableImage(HbvlaError):
    """An image cannot be decoded; ``camera`` is whose."""

    def __init__(self, camera: str, error: HbvlaError) -> None:
        """Name the camera in front of what is wrong."""
        super().__init__(f'camera {camera}: {error}')
        self.camera = camera


def check_policy(policy: PolicyLike, profile: RobotProfile) -> list[CameraProfile]:
    """The cameras the policy needs, in its order.

    A checkpoint has no joint names: that order and units agree is what the robot tag vouches for.

    Raises:
        HbvlaError: the checkpoint was trained for another robot, camera set or joint count, has
            chunks of one row, or rows closer together than this robot is commanded.
    """
    platform, name = policy.platform, policy.checkpoint
    if platform.robot != profile.robot:
        raise HbvlaError(
            f'checkpoint {name} is for robot {platform.robot!r}, the profile {profile.name} is '
            f'{profile.robot!r}; use a checkpoint for this robot or, if joints, order and grippers '
            f'are the same, a platform file with "robot": "{profile.robot}" (parameter platform, '
            'see docs/robots.md)'
        )
    cameras = {camera.name: camera for camera in profile.cameras}
    missing = [camera for camera in platform.cameras if camera not in cameras]
    if missing:
        raise HbvlaError(
            f'checkpoint {name} needs camera {missing[0]!r}, the profile {profile.name} has '
            f'{", ".join(cameras)}'
        )
    joints = len(profile.action_names)
    if platform.action_dim != joints or platform.proprio_dim not in (0, joints):
        raise HbvlaError(
            f'checkpoint {name} has {platform.action_dim} actions and {platform.proprio_dim} '
            f'proprioception values, the profile {profile.name} has {joints} joints'
        )
    if platform.chunk < 2:
        raise HbvlaError(f'checkpoint {name} makes chunks of one row, arm_node needs two or more')
    # Joints are interpolated between rows; rows between two commands would be lost.
    if platform.step * profile.control_rate < 1.0 - _RATE_TOLERANCE:
        raise HbvlaError(
            f'checkpoint {name} has a row every {platform.step:g} s, the profile {profile.name} '
            f'commands every {1.0 / profile.control_rate:g} s; raise rates.control'
        )
    return [cameras[camera] for camera in platform.cameras]


@dataclass(frozen=True)
class Request:
    """What one inference is made from.

    Attributes:
        aligned: images, still undecoded, and the pose that belongs to them.
        cameras: the profile's cameras of these images.
        instruction: task in words.
    """

    aligned: Aligned
    cameras: Sequence[CameraProfile]
    instruction: str


@dataclass(frozen=True)
class Outcome:
    """A chunk with the seconds that decoding, acting and publishing took."""

    chunk: ActionChunk
    decoding: float
    acting: float
    publishing: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.decoding + self.acting + self.publishing


def infer(policy: PolicyLike, profile: RobotProfile, request: Request, decode: Decoder) -> Outcome:
    """Decode the frames and ask the policy.

    Raises:
        UndecodableImage: an image cannot be decoded.
        HbvlaError: the policy refuses, or its chunk is refused, see :func:`check_chunk`.
    """
    started = time.perf_counter()
    images = {}
    for camera in request.cameras:
        message = request.aligned.frames[camera.name].payload
        try:
            images[camera.name] = decode(message, camera.encoding)
        except HbvlaError as error:
            raise UndecodableImage(camera.name, error) from error
    decoded = time.perf_counter()
    observation = Observation(
        images=images,
        # Policies see the grippers as ratios, whatever unit their own actions have.
        proprioception=np.asarray(request.aligned.pose, dtype=np.float64),
        instruction=request.instruction,
        stamp=request.aligned.stamp,
    )
    chunk = policy.act(observation)
    check_chunk(chunk, profile)
    return Outcome(chunk, decoded - started, time.perf_counter() - decoded)


def check_chunk(chunk: ActionChunk, profile: RobotProfile) -> None:
    """Refuse a chunk that is not worth sending.

    Raises:
        HbvlaError: it has not two rows or more of the profile's width, or a number in it is not
            finite.
    """
    names, rows = profile.action_names, np.asarray(chunk.actions, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != len(names):
        raise HbvlaError(
            f'policy returned a chunk of shape {rows.shape}, not (2 or more, {len(names)})'
        )
    strange = np.argwhere(~np.isfinite(rows))
    if len(strange):
        row, column = strange[0]
        raise HbvlaError(
            f'policy returned {rows[row, column]} for {names[column]} in row {row}; '
            'the whole chunk is dropped'
        )
