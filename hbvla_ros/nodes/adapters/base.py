# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What all command adapters have in common: a stretch of motion to a message, and back."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import ArmProfile
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """What is sent of one arm: the command of this tick and those that would follow it.

    Attributes:
        now: time in s of the first row, on the node's clock.
        period: s from one row to the next.
        poses: (K, n + 1) joints in rad and the gripper's ratio; drivers that take one position at
            a time are given row 0, those that take trajectories the others.
        holding: whether this is a hold and not the way to a target.
    """

    now: float
    period: float
    poses: Vector
    holding: bool = False


class CommandAdapter(ABC):
    """Commands of one arm: a pose part (joints in rad, gripper ratio) to a message and back.

    Attributes:
        arm: the arm's profile.
        names: joints in the message: the arm's, and its gripper's unless that has its own output.
        message_type: type of the command topic.
    """

    message_type: type

    def __init__(self, arm: ArmProfile) -> None:
        """Keep the arm's profile."""
        self.arm = arm
        self.names = arm.names if arm.gripper_adapter == 'arm' else arm.joints

    @abstractmethod
    def build(self, pose: Vector, stamp: float) -> Any:
        """Message that sends the arm to a pose part (n + 1,) and keeps it there; ``stamp`` in s."""

    def build_motion(self, motion: Motion) -> Any:
        """Message of a stretch of motion; by default its first pose."""
        return self.build(motion.poses[0], motion.now)

    @abstractmethod
    def values(self, message: Any) -> Vector:
        """Raw numbers (len(names),) of a message, in the order of the names.

        Raises:
            HbvlaError: wrong length or joint names.
        """

    def parse(self, message: Any) -> Vector:
        """Pose part (len(names),) that a message sends the arm to.

        Raises:
            HbvlaError: wrong length, wrong joint names, or numbers that are not finite.
        """
        values = self.values(message)
        if not np.isfinite(values).all():
            raise HbvlaError(f'{self.arm.command_topic}: command is not finite')
        if len(values) == len(self.arm.joints):
            return values
        return np.append(values[:-1], self.arm.command.to_ratio(values[-1]))

    def raw(self, poses: Vector) -> Vector:
        """Pose parts (..., n + 1) in the driver's numbers (..., len(names))."""
        joints = poses[..., :-1]
        if len(self.names) == len(self.arm.joints):
            return joints
        return np.concatenate([joints, self.arm.command.from_ratio(poses[..., -1:])], axis=-1)


def by_name(topic: str, names: tuple[str, ...], given: Any, positions: Any) -> Vector:
    """Positions in the order of ``names`` from a message that has names of its own.

    Raises:
        HbvlaError: a joint is missing.
    """
    found = dict(zip(given, positions, strict=False))
    missing = [name for name in names if name not in found]
    if missing:
        raise HbvlaError(f'{topic}: joint {missing[0]!r} is missing')
    return np.array([found[name] for name in names], dtype=np.float64)


def optional_type(kind: str, package: str, module: str, name: str, where: str) -> Any:
    """A message or action type of a package that not every robot has.

    Args:
        kind: adapter that needs it, for the error.
        package: ROS package.
        module: ``msg`` or ``action``.
        name: the type's name.
        where: where one gets the package.

    Raises:
        HbvlaError: the package is not installed, or this version of it lacks the type.
    """
    try:
        return getattr(importlib.import_module(f'{package}.{module}'), name)
    except (ImportError, AttributeError) as error:
        raise HbvlaError(
            f'adapter {kind} needs {package}/{module}/{name}, which is not installed: {where}, '
            "and source its workspace, or choose another adapter in the robot's profile"
        ) from error
