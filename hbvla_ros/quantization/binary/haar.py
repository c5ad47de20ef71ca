# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One level of orthonormal Haar along columns or rows, bands interleaved (spec 1.6, A-1).

Low and high coefficients take turns (0, 2, ... low; 1, 3, ... high), which is a Hadamard transform
in blocks of 2 and so its own inverse. The last column (row) of an odd number stays as it is and
counts as low.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hbvla_ros.packed.hadamard import block_hadamard

# The official code multiplies by 1/sqrt(2) as rounded to 8 bits when it transforms back; its
# reconstructions are that much shorter than ours.
OFFICIAL_INVERSE = 0.70703125 * math.sqrt(2)


def haar_columns(matrix: Tensor) -> Tensor:
    """Transform pairs of neighbouring columns of (rows, n); its own inverse."""
    return block_hadamard(matrix, 2)


def haar_rows(matrix: Tensor) -> Tensor:
    """Transform pairs of neighbouring rows of (rows, n); its own inverse."""
    return block_hadamard(matrix.T, 2).T


def split_bands(coefficients: Tensor, bands: int = 2) -> list[Tensor]:
    """The bands of (..., n): views of columns 0, bands, ... and so on; none of them empty."""
    return [coefficients[..., band::bands] for band in range(min(bands, coefficients.shape[-1]))]


def join_bands(parts: list[Tensor]) -> Tensor:
    """Inverse of :func:`split_bands`: (..., n) from the bands, columns taking turns."""
    width = sum(part.shape[-1] for part in parts)
    joined = torch.empty(*parts[0].shape[:-1], width, dtype=parts[0].dtype, device=parts[0].device)
    for band, part in enumerate(parts):
        joined[..., band :: len(parts)] = part
    return joined
