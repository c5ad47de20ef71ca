# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a budget of stored bits buys: of one layer, or the same number of planes everywhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.methods.signplane import SignPlaneOptions
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.registry import Method
from hbvla_ros.quantization.tiles import MOST_PLANES, SCALE_BYTES, plane_bytes, tile_rows

Shapes = Mapping[str, tuple[int, int]]


def check_bits(method: Method, bits: float | None) -> None:
    """Refuse a ``--bits`` that the method cannot take, whatever the layers are.

    Args:
        method: the method.
        bits: what is asked for; None leaves the method its own size.

    Raises:
        HbvlaError: its size is fixed, it takes plane counts only, or it is no positive number.
    """
    if bits is None or (method.planes and bits in range(1, MOST_PLANES + 1)):
        return
    if not method.planes and not method.budgeted:
        raise HbvlaError(
            f'--bits {bits:g}: the size of {method.name} is fixed by the method; leave --bits out'
        )
    if not method.budgeted:
        raise HbvlaError(f'--bits {bits:g}: {method.name} takes 1, 2 or 3 (sign planes)')
    if not 0 < bits < math.inf:
        raise HbvlaError(f'--bits {bits:g}: must be a positive number of stored bits per weight')


def options_for_layer(
    method: Method, options: MethodOptions, rows: int, columns: int, bits: float | None
) -> MethodOptions:
    """Options with which one layer keeps a budget of stored bits.

    Of methods with sign planes 1, 2 and 3 ask for so many planes, whatever their scales cost on
    top; any other number is a budget, scales included, that is never exceeded.

    Args:
        method: the method.
        options: its options but for the size.
        rows: outputs of the layer.
        columns: inputs of the layer.
        bits: what ``--bits`` asks, None for the method's own size.

    Raises:
        HbvlaError: the method takes no such number, or the layer cannot be made that small; says
            the smallest budget that works.
    """
    check_bits(method, bits)
    if bits is None:
        return options
    if method.planes and bits in range(1, MOST_PLANES + 1):
        changes: dict[str, object] = {'planes': int(bits)}
        if isinstance(options, SignPlaneOptions):
            changes.update(stored_bits=None, tile_planes=None)
        return dataclasses.replace(options, **changes)  # type: ignore[arg-type]
    if not isinstance(options, SignPlaneOptions):
        raise HbvlaError(f'--bits {bits:g}: {method.name} cannot be fitted to a budget')
    least = 8 * options.stored_bytes(rows, columns, [1] * len(tile_rows(rows))) / (rows * columns)
    if bits < least:
        raise HbvlaError(_too_small(method, bits, least, f'a layer of {rows} x {columns}'))
    return dataclasses.replace(options, stored_bits=bits, tile_planes=None)


def stored_bits(method: Method, shapes: Shapes, planes: int) -> float:
    """Stored bits per weight of a network quantized with so many planes everywhere.

    Args:
        method: the method; some store a column scale besides the row scales.
        shapes: layer name to (rows, columns).
        planes: sign planes of each layer.
    """
    size = 0
    for rows, columns in shapes.values():
        size += planes * plane_bytes(rows, columns)
        size += columns * SCALE_BYTES if method.column_scale else 0
    return 8 * size / sum(rows * columns for rows, columns in shapes.values())


def planes_for_budget(method: Method, shapes: Shapes, bits: float) -> int:
    """Sign planes of all layers for what ``--bits`` asks.

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
        raise HbvlaError(_too_small(method, bits, smallest, 'this network'))
    fitting = [p for p in range(1, MOST_PLANES + 1) if stored_bits(method, shapes, p) <= bits]
    return max(fitting)


def _too_small(method: Method, bits: float, smallest: float, where: str) -> str:
    """The line that says which budget would do."""
    needed = math.ceil(smallest * 100) / 100
    if not method.planes:
        return (
            f'--bits {bits:g}: {method.name} takes at least {smallest:.3f} stored bits on {where}; '
            f'ask for --bits {needed:g} or more'
        )
    return (
        f'--bits {bits:g}: one sign plane with its scales takes {smallest:.3f} stored bits on '
        f'{where}; ask for --bits {needed:g} or more, or for --bits 1 (one plane)'
    )
