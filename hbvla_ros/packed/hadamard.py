# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Orthonormal block Walsh-Hadamard transform for widths of any kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hadamard_blocks(columns: int, largest: int) -> list[tuple[int, int, int]]:
    """Cut a width into Hadamard blocks, largest first.

    As many blocks of ``largest`` as fit come first, the remainder is cut into falling powers of
    two: 4304 columns become 33 blocks of 128, one of 64 and one of 16; an odd width ends in a
    block of 1, which leaves its column as it is.

    Args:
        columns: width to cut.
        largest: size of the largest block, a power of two; 1 means no transform at all.

    Returns:
        List of (start, size, count): ``count`` adjacent blocks of ``size`` columns from ``start``.
    """
    if largest < 1 or largest & (largest - 1):
        raise ValueError(f'Hadamard block must be a power of two, got {largest}')
    blocks: list[tuple[int, int, int]] = []
    start, size = 0, largest
    while start < columns:
        count = (columns - start) // size
        if count:
            blocks.append((start, size, count))
            start += count * size
        size //= 2
    return blocks


def walsh_hadamard(values: Tensor) -> Tensor:
    """Fast orthonormal Walsh-Hadamard transform of the last axis, in Sylvester order.

    Args:
        values: (..., n) with n a power of two, floating point.

    Returns:
        (..., n), ``values @ S / sqrt(n)`` with the symmetric Sylvester matrix S.
    """
    size = values.shape[-1]
    shape = values.shape
    half = 1
    while half < size:
        pairs = values.reshape(*shape[:-1], size // (2 * half), 2, half)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        values = torch.stack((low + high, low - high), dim=-2)
        half *= 2
    return values.reshape(shape) / math.sqrt(size)


def block_hadamard(values: Tensor, largest: int) -> Tensor:
    """Transform the last axis block by block; its own inverse.

    Args:
        values: (..., columns), floating point.
        largest: size of the largest block (see :func:`hadamard_blocks`).

    Returns:
        (..., columns) in the dtype of ``values``.
    """
    if largest == 1:
        return values
    parts = []
    for start, size, count in hadamard_blocks(values.shape[-1], largest):
        part = values[..., start : start + size * count]
        parts.append(walsh_hadamard(part.unflatten(-1, (count, size))).flatten(-2))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
