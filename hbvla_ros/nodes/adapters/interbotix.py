# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The Interbotix X-Series driver: a joint group and a single gripper, if its messages are there.

The driver clamps nothing and passes positions on at once, so what it is sent is final.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from hbvla_ros.control.profile import ArmProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters.base import CommandAdapter, Vector, optional_type

_PACKAGE = 'interbotix_xs_msgs'
_WHERE = 'build interbotix_xs_msgs of https://github.com/Interbotix/interbotix_ros_core'


class JointGroupCommand(CommandAdapter):
    """``interbotix_xs_msgs/JointGroupCommand``: positions of a named group, in its order."""

    def __init__(self, arm: ArmProfile) -> None:
        """Find the message type.

        Raises:
            HbvlaError: the vendor's messages are not installed.
        """
        super().__init__(arm)
        self.message_type = optional_type(
            'interbotix', _PACKAGE, 'msg', 'JointGroupCommand', _WHERE
        )

    def build(self, pose: Vector, stamp: float) -> Any:
        """Unstamped message with the group's name."""
        return self.message_type(name=self.arm.group, cmd=array('f', self.raw(pose).tolist()))

    def values(self, message: Any) -> Vector:
        """The positions, if they are of this group and one for each joint."""
        topic = self.arm.command_topic
        if message.name != self.arm.group:
            raise HbvlaError(f'{topic}: group {message.name!r} is not {self.arm.group!r}')
        if len(message.cmd) != len(self.names):
            raise HbvlaError(f'{topic}: expected {len(self.names)} numbers, got {len(message.cmd)}')
        return np.array(message.cmd, dtype=np.float64)


class JointSingleCommand:
    """``interbotix_xs_msgs/JointSingleCommand``: the gripper alone.

    Attributes:
        message_type: type of the gripper's command topic.
    """

    def __init__(self, arm: ArmProfile) -> None:
        """Find the message type.

        Raises:
            HbvlaError: the vendor's messages are not installed.
        """
        self._arm = arm
        self.message_type = optional_type(
            'interbotix_single', _PACKAGE, 'msg', 'JointSingleCommand', _WHERE
        )

    def build(self, ratio: float) -> Any:
        """Message of an opening 0 closed .. 1 open."""
        value = float(self._arm.command.from_ratio(ratio))
        return self.message_type(name=self._arm.gripper_command_name, cmd=value)

    def parse(self, message: Any) -> float:
        """The opening that a message asks for.

        Raises:
            HbvlaError: another joint, or no finite number.
        """
        topic = self._arm.gripper_command_topic
        if message.name != self._arm.gripper_command_name:
            raise HbvlaError(
                f'{topic}: joint {message.name!r} is not {self._arm.gripper_command_name!r}'
            )
        if not np.isfinite(message.cmd):
            raise HbvlaError(f'{topic}: command is not finite')
        return float(self._arm.command.to_ratio(message.cmd))
