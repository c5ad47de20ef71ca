# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How many sign planes a budget of stored bits buys."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import bytes_per_row
from hbvla_ros.quantization.registry import Method

MOST_PLANES = 3
_SCALE_BYTES = 2

Shapes = Mapping[str, tuple[int, int]]


def stored_bits(method: Method, shapes: Shapes, planes: int) -> float:
    """Stored bits per weight of a network quantized with so many planes everywhere.

    Args:
        method: the method; some store a column scale besides the row scales.
        shapes: layer name to (rows, columns).
        planes: sign planes of each layer.
    """
    size = 0
    for rows, columns in shapes.values():
        size += planes * rows * (bytes_per_row(columns) + _SCALE_BYTES)
        size += columns * _SCALE_BYTES if method.column_scale else 0
    return 8 * size / sum(rows * columns for rows, columns in shapes.values())


def planes_for_budget(method: Method, shapes: Shapes, bits: float) -> int:
    """Sign planes for what ``--bits`` asks.

    A whole number asks for that many planes, whatever their scales cost on top; any other number
    is a budget of stored bits, scales included, that is not exceeded.

    Raises:
        HbvlaError: no plane count fits; says the smallest budget that does.
    """
    if bits in range(1, MOST_PLANES + 1):
        return int(bits)
    if not method.budgeted:
        raise HbvlaError(f'--bits {bits:g}: {method.name} takes 1, 2 or 3 (sign planes)')
    smallest = stored_bits(method, shapes, 1)
    if not bits >= smallest:
        needed = math.ceil(smallest * 100) / 100
        raise HbvlaError(
            f'--bits {bits:g}: one sign plane with its scales takes {smallest:.3f} stored bits on '
            f'this network; ask for --bits {needed:g} or more, or for --bits 1 (one plane)'
        )
    fitting = [p for p in range(1, MOST_PLANES + 1) if stored_bits(method, shapes, p) <= bits]
    return max(fitting)
