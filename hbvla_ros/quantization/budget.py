# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What ``--bits`` asks of one layer, and whether a network can be made that small."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.sign_planes import MOST_PLANES
from hbvla_ros.quantization.methods.dbf import DbfOptions
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.registry import Method
from hbvla_ros.quantization.tiles import tile_rows


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


def check_network_bits(
    method: Method,
    options: MethodOptions,
    shapes: Mapping[str, tuple[int, ...]],
    bits: float | None,
) -> None:
    """Refuse a budget that is too small for a network, before any of its layers is looked at.

    Args:
        method: the method.
        options: its options but for the size.
        shapes: layer name to (rows, columns) of all layers that share the budget.
        bits: what ``--bits`` asks.

    Raises:
        HbvlaError: see :func:`check_bits`, or the smallest layers already take more; says the
            smallest budget that works.
    """
    check_bits(method, bits)
    if bits is None or not method.budgeted or (method.planes and bits in range(1, MOST_PLANES + 1)):
        return
    sizes = [_least_bytes(method, options, rows, columns) for rows, columns in shapes.values()]
    least = 8 * sum(sizes) / sum(rows * columns for rows, columns in shapes.values())
    if bits < least:
        raise HbvlaError(_too_small(method, bits, least, 'this network'))


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
    least = 8 * _least_bytes(method, options, rows, columns) / (rows * columns)
    if bits < least:
        raise HbvlaError(_too_small(method, bits, least, f'a layer of {rows} x {columns}'))
    if isinstance(options, SignPlaneOptions):
        return dataclasses.replace(options, stored_bits=bits, tile_planes=None)
    return dataclasses.replace(options, stored_bits=bits, width=0)  # type: ignore[call-arg]


def _least_bytes(method: Method, options: MethodOptions, rows: int, columns: int) -> int:
    """Bytes of the smallest layer that a budgeted method makes."""
    if isinstance(options, SignPlaneOptions):
        return options.stored_bytes(rows, columns, [1] * len(tile_rows(rows)))
    if isinstance(options, DbfOptions):
        return options.stored_bytes(rows, columns, 1)
    raise TypeError(f'{method.name} is said to be budgeted, but has no sizes')


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
