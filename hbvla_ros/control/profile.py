# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What one robot is: joints, topics, units, limits, rates and cameras, from one YAML file.

Inside this package a pose is a float64 vector in **action order**: for each arm its joints in
rad, then its gripper from 0 (closed) to 1 (open); left arm first. The three gripper maps turn
that ratio into what the robot observes, what the policy emits and what the driver is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile_reader import read_profile
from hbvla_ros.control.profile_types import (
    ArmProfile,
    CameraProfile,
    GripperMap,
    SafetyProfile,
    StopService,
)
from hbvla_ros.errors import HbvlaError
from hbvla_ros.resources import share_path

__all__ = [
    'ArmProfile',
    'CameraProfile',
    'GripperMap',
    'RobotProfile',
    'SafetyProfile',
    'StopService',
]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class RobotProfile:
    """One robot. Rates in Hz, times in s, angles in rad.

    Attributes:
        name: file name without its suffix.
        robot: tag that a checkpoint must carry to be allowed to drive this robot.
        control_rate: rate of the control tick and of the commands.
        joint_state_rate: rate at which each arm reports its joints.
        arms: arms in action order.
        cameras: cameras by their names in the checkpoint.
        safety: margins, bounds and watchdog times.
        stop_services: what the guard calls when a stop latches.
    """

    name: str
    robot: str
    control_rate: float
    joint_state_rate: float
    arms: tuple[ArmProfile, ...]
    cameras: tuple[CameraProfile, ...]
    safety: SafetyProfile
    stop_services: tuple[StopService, ...] = ()

    @staticmethod
    def load(name_or_path: str | Path) -> RobotProfile:
        """Read a profile by the name of a shipped robot or by the path of a YAML file.

        Raises:
            HbvlaError: unknown robot, or the first fault in the file, naming file and key.
        """
        path = _find(name_or_path)
        head, arms, cameras, safety, stops = read_profile(path)
        return RobotProfile(path.stem, *head, arms, cameras, safety, stops)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action's dimensions: each arm's joints, then its gripper joint.

        Where two arms use one name for their joints, as many drivers do, all names here carry
        their arm's name in front: ``left/joint0``.
        """
        names = [name for arm in self.arms for name in arm.names]
        if len(set(names)) == len(names):
            return tuple(names)
        return tuple(f'{arm.name}/{name}' for arm in self.arms for name in arm.names)

    @property
    def is_gripper(self) -> NDArray[np.bool_]:
        """Boolean (A,): which dimensions are grippers."""
        return np.concatenate([[False] * len(a.joints) + [True] for a in self.arms]).astype(bool)

    @property
    def lower(self) -> Vector:
        """Lower position limits (A,), grippers 0."""
        return np.concatenate([[*a.lower, 0.0] for a in self.arms])

    @property
    def upper(self) -> Vector:
        """Upper position limits (A,), grippers 1."""
        return np.concatenate([[*a.upper, 1.0] for a in self.arms])

    @property
    def velocity(self) -> Vector:
        """Velocity limits (A,): rad/s, grippers in full travels per second."""
        return np.concatenate([[*a.velocity, a.gripper_velocity] for a in self.arms])

    @property
    def acceleration(self) -> Vector:
        """Acceleration limits (A,) in rad/s^2; grippers infinite, only their velocity counts."""
        return np.concatenate([[*a.acceleration, np.inf] for a in self.arms])

    @property
    def jerk(self) -> Vector:
        """Jerk limits (A,) in rad/s^3; grippers infinite, only their velocity counts."""
        return np.concatenate([[*a.jerk, np.inf] for a in self.arms])

    @property
    def start_pose(self) -> Vector:
        """Pose (A,) that the robot starts from."""
        return np.concatenate([a.start_pose for a in self.arms])

    def split(self, pose: Vector) -> list[Vector]:
        """Cut a pose (A,) into one vector per arm."""
        return np.split(pose, np.cumsum([len(arm.names) for arm in self.arms])[:-1])

    def action_to_pose(self, actions: Vector) -> Vector:
        """Policy actions (..., A) to poses: the action gripper map is undone."""
        return self._map_grippers(actions, inverse=False)

    def pose_to_action(self, poses: Vector) -> Vector:
        """Poses (..., A) to policy units: the inverse of :meth:`action_to_pose`."""
        return self._map_grippers(poses, inverse=True)

    def _map_grippers(self, values: Vector, inverse: bool) -> Vector:
        mapped = np.array(values, dtype=np.float64)
        for index, arm in zip(np.flatnonzero(self.is_gripper), self.arms, strict=True):
            convert = arm.action.from_ratio if inverse else arm.action.to_ratio
            mapped[..., index] = convert(mapped[..., index])
        return mapped


def _find(name_or_path: str | Path) -> Path:
    """The profile's file: a path is taken as it is, a bare name is looked up."""
    text = str(name_or_path)
    if text.endswith(('.yaml', '.yml')) or '/' in text:
        return Path(text)
    folder = share_path('config', 'robots')
    known = sorted(path.stem for path in folder.glob('*.yaml'))
    if text not in known:
        raise HbvlaError(
            f'unknown robot {text!r}; known are {", ".join(known)}, or give the path '
            'of a profile .yaml'
        )
    return folder / f'{text}.yaml'
