# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Node parameters as one typed table: declared with description and range, read back checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from hbvla_ros.errors import HbvlaError

_LARGEST = 1.0e9


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    Attributes:
        name: as it is set from outside.
        default: value when not set; its type (bool, int, float or str) is the parameter's.
        description: one sentence, with the unit.
        low: smallest number allowed, None for any.
        high: largest number allowed, None for any.
        choices: words allowed, empty for any text.
        changeable: whether it may be set while the node runs.
    """

    name: str
    default: bool | int | float | str
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    changeable: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """What ``ros2 param describe`` shows and rclpy enforces."""
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            read_only=not self.changeable,
            additional_constraints=f'one of {", ".join(self.choices)}' if self.choices else '',
        )
        if self.low is not None or self.high is not None:
            low = -_LARGEST if self.low is None else self.low
            high = _LARGEST if self.high is None else self.high
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(low), to_value=float(high))
                ]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        return descriptor


def declare(node: Node, table: Sequence[Parameter]) -> None:
    """Declare every parameter of the table.

    Raises:
        HbvlaError: a value given from outside has the wrong type or is out of range.
    """
    for parameter in table:
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except Exception as error:
            kind = type(parameter.default).__name__
            raise HbvlaError(
                f'parameter {parameter.name}: {error}; {parameter.description} ({kind}, '
                f'for example {parameter.default!r})'
            ) from error


def read(node: Node, table: Sequence[Parameter]) -> dict[str, Any]:
    """The present values by name.

    Raises:
        HbvlaError: a text that is not one of the parameter's choices.
    """
    values = {parameter.name: node.get_parameter(parameter.name).value for parameter in table}
    for parameter in table:
        if parameter.choices and values[parameter.name] not in parameter.choices:
            raise HbvlaError(
                f'parameter {parameter.name}: {values[parameter.name]!r} is not one of '
                f'{", ".join(parameter.choices)}'
            )
    return values
