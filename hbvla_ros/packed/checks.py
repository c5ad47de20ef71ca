# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Tests of what a stored layer says, so that a damaged or forged folder is refused by name.

Each function yields faults: (name of the tensor or option, what is wrong with it). A layer's own
``faults`` runs them in an order in which each may rely on what those before it have seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.log_scales import read_scale

SCALE_DTYPES = (torch.float16, torch.bfloat16)
# A scale of 8 bits comes with a span, see ``log_scales``.
LOG_DTYPES = (torch.uint8,)
INDEX_DTYPES = (torch.int16, torch.int32)

Fault = tuple[str, str]
# Part name to the shape and the dtypes it must have.
Expected = Mapping[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]


def check_names(
    what: str, found: Collection[str], needed: Collection[str], optional: Collection[str] = ()
) -> None:
    """Refuse names that are missing or unknown.

    Args:
        what: 'tensor' or 'option', for the message.
        found: names that are there.
        needed: names that must be.
        optional: names that may be.

    Raises:
        ValueError: naming one that is missing or has no place.
    """
    for name in needed:
        if name not in found:
            raise ValueError(f'no {what} {name}')
    for name in found:
        if name not in needed and name not in optional:
            raise ValueError(f'{what} {name} has no place in it')


def axis_faults(tensors: Mapping[str, Tensor], axes: Mapping[str, int]) -> Iterator[Fault]:
    """Tensors with another number of axes than they must have, or with an axis of length 0.

    Args:
        tensors: by part name.
        axes: part name to its number of axes.
    """
    for name, tensor in tensors.items():
        if tensor.ndim != axes[name]:
            yield name, f'expected {axes[name]} axes, found shape {tuple(tensor.shape)}'
        elif tensor.numel() == 0:
            yield name, f'it is empty, shape {tuple(tensor.shape)}'


def shape_faults(tensors: Mapping[str, Tensor], expected: Expected) -> Iterator[Fault]:
    """Tensors of a wrong shape or dtype."""
    for name, tensor in tensors.items():
        shape, dtypes = expected[name]
        if tuple(tensor.shape) != shape or tensor.dtype not in dtypes:
            wanted = ' or '.join(_short(dtype) for dtype in dtypes)
            found = f'{tuple(tensor.shape)} {_short(tensor.dtype)}'
            yield name, f'expected {shape} {wanted}, found {found}'


def number_faults(name: str, value: Any, least: int, most: int) -> Iterator[Fault]:
    """An option that is no whole number between two bounds."""
    if type(value) is not int or not least <= value <= most:
        yield name, f'expected a whole number from {least} to {most}, found {value!r}'


def block_faults(name: str, value: Any) -> Iterator[Fault]:
    """An option that is no Hadamard block: a power of two."""
    if type(value) is not int or value < 1 or value & (value - 1):
        yield name, f'expected a power of two, found {value!r}'


def scale_faults(name: str, scale: Tensor | None, span: Tensor | None = None) -> Iterator[Fault]:
    """Scales that are no finite numbers, and a span without its scales."""
    if scale is None:
        if span is not None:
            yield f'{name}_span', f'there is no {name}'
    elif not bool(read_scale(scale, span).isfinite().all()):
        yield name, 'it holds NaN or infinity'


def index_faults(name: str, index: Tensor | None, below: int) -> Iterator[Fault]:
    """Column numbers out of range or repeated."""
    if index is None:
        return
    values = index.long()
    outside = values[(values < 0) | (values >= below)]
    if len(outside):
        yield name, f'column {int(outside[0])} is out of range, the layer has {below}'
        return
    values = values.sort().values
    repeated = values[1:][values[1:] == values[:-1]]
    if len(repeated):
        yield name, f'column {int(repeated[0])} is there twice'


def expected_scale(
    name: str, shape: tuple[int, ...], span: Tensor | None
) -> dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]:
    """What a scale and its span must be.

    Args:
        name: part name of the scale; that of the span is ``<name>_span``.
        shape: shape of the scale.
        span: the span that is there, None for a scale of 16 bits.
    """
    dtypes = SCALE_DTYPES if span is None else LOG_DTYPES
    return {name: (shape, dtypes), f'{name}_span': ((2,), (torch.float32,))}


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')
