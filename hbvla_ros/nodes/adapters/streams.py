# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Drivers that are told one position at a time, in every control period, also while holding."""

from __future__ import annotations

from array import array

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters.base import CommandAdapter, Vector, by_name
from hbvla_ros.nodes.conversions import joint_state


class ForwardCommand(CommandAdapter):
    """forward_command_controller: an unstamped array of positions."""

    message_type = Float64MultiArray

    def build(self, pose: Vector, stamp: float) -> Float64MultiArray:
        """Array message; it has no stamp."""
        return Float64MultiArray(data=array('d', self.raw(pose).tolist()))

    def values(self, message: Float64MultiArray) -> Vector:
        """The array, if it has one number per joint."""
        if len(message.data) != len(self.names):
            raise HbvlaError(
                f'{self.arm.command_topic}: expected {len(self.names)} numbers, '
                f'got {len(message.data)}'
            )
        return np.array(message.data, dtype=np.float64)


class JointStateCommand(CommandAdapter):
    """Drivers that take positions as a JointState, such as AgileX arms."""

    message_type = JointState

    def build(self, pose: Vector, stamp: float) -> JointState:
        """Stamped message with names."""
        return joint_state(self.names, self.raw(pose), stamp)

    def values(self, message: JointState) -> Vector:
        """Positions by name; every joint must be there."""
        return by_name(self.arm.command_topic, self.names, message.name, message.position)
