# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One class per kind of arm driver: what a command looks like on the wire, both ways.

Robots are commanded with :meth:`CommandAdapter.build`; the simulated robot reads the same
messages with :meth:`CommandAdapter.parse`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from hbvla_ros.control.profile import ArmProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.conversions import joint_state

Vector = NDArray[np.float64]


class CommandAdapter(ABC):
    """Commands of one arm: a pose part (joints in rad, gripper ratio) to a message and back."""

    message_type: ClassVar[type]

    def __init__(self, arm: ArmProfile) -> None:
        """Keep the arm's profile."""
        self.arm = arm

    @abstractmethod
    def build(self, pose: Vector, stamp: float) -> Any:
        """Message of a pose part (n + 1,), stamped in s."""

    @abstractmethod
    def values(self, message: Any) -> Vector:
        """Raw numbers (n + 1,) of a message, in the order of the arm's names.

        Raises:
            HbvlaError: wrong length or joint names.
        """

    def parse(self, message: Any) -> Vector:
        """Pose part (n + 1,) of a message.

        Raises:
            HbvlaError: wrong length, wrong joint names, or numbers that are not finite.
        """
        values = self.values(message)
        if not np.isfinite(values).all():
            raise HbvlaError(f'{self.arm.command_topic}: command is not finite')
        return np.append(values[:-1], self.arm.command.to_ratio(values[-1]))

    def _raw(self, pose: Vector) -> Vector:
        return np.append(pose[:-1], self.arm.command.from_ratio(pose[-1]))


class ForwardCommand(CommandAdapter):
    """forward_command_controller: an unstamped array of positions."""

    message_type = Float64MultiArray

    def build(self, pose: Vector, stamp: float) -> Float64MultiArray:
        """Array message; it has no stamp."""
        return Float64MultiArray(data=array('d', self._raw(pose).tolist()))

    def values(self, message: Float64MultiArray) -> Vector:
        """The array, if it has one number per joint."""
        if len(message.data) != len(self.arm.names):
            raise HbvlaError(
                f'{self.arm.command_topic}: expected {len(self.arm.names)} numbers, '
                f'got {len(message.data)}'
            )
        return np.array(message.data, dtype=np.float64)


class JointStateCommand(CommandAdapter):
    """Drivers that take positions as a JointState, such as AgileX arms."""

    message_type = JointState

    def build(self, pose: Vector, stamp: float) -> JointState:
        """Stamped message with names."""
        return joint_state(self.arm.names, self._raw(pose), stamp)

    def values(self, message: JointState) -> Vector:
        """Positions by name; every joint must be there."""
        positions = dict(zip(message.name, message.position, strict=False))
        missing = [name for name in self.arm.names if name not in positions]
        if missing:
            raise HbvlaError(f'{self.arm.command_topic}: joint {missing[0]!r} is missing')
        return np.array([positions[name] for name in self.arm.names], dtype=np.float64)


_KINDS: dict[str, type[CommandAdapter]] = {
    'forward_command': ForwardCommand,
    'joint_state': JointStateCommand,
}


def make_adapter(arm: ArmProfile) -> CommandAdapter:
    """The adapter an arm's profile asks for."""
    return _KINDS[arm.adapter](arm)
