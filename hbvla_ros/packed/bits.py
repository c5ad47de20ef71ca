# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Sign planes as bits: eight signs a byte, rows one after another."""

from __future__ import annotations

import torch
from torch import Tensor


def bytes_per_row(columns: int) -> int:
    """Bytes that one row of a sign plane takes; the last byte is padded with zero bits."""
    return (columns + 7) // 8


def pack_signs(signs: Tensor) -> Tensor:
    """Pack signs along the last axis.

    Args:
        signs: (..., columns), any real dtype; values >= 0 are stored as +1, others as -1.

    Returns:
        uint8 (..., ceil(columns / 8)); bit i of byte k belongs to column 8 k + i, set means +1.
    """
    columns = signs.shape[-1]
    bits = (signs >= 0).to(torch.uint8)
    bits = torch.nn.functional.pad(bits, (0, bytes_per_row(columns) * 8 - columns))
    bits = bits.unflatten(-1, (bytes_per_row(columns), 8))
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=bits.device)
    return (bits * weights).sum(dim=-1, dtype=torch.uint8)


def unpack_signs(packed: Tensor, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inverse of :func:`pack_signs`.

    Args:
        packed: uint8 (..., ceil(columns / 8)).
        columns: width of the sign plane; the padding bits of the last byte are dropped.
        dtype: dtype of the result.

    Returns:
        (..., columns) of -1 and +1.
    """
    # A look-up of whole bytes is several times faster here than shifting each bit out.
    table = _sign_table(dtype, packed.device)
    return table[packed.long()].flatten(-2)[..., :columns]


def _sign_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(256, 8): the eight signs of every byte value."""
    values = torch.arange(256, device=device)[:, None]
    places = torch.arange(8, device=device)[None, :]
    return (((values >> places) & 1) * 2 - 1).to(dtype)
