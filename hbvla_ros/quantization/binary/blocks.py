# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The loop over blocks of columns with error feedback, each block quantized at once (spec 1.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from hbvla_ros.packed.layer import store_scale
from hbvla_ros.quantization.hessian import damped, feedback_factor

Feedback = Literal['diagonal', 'exact']
Parts = TypeVar('Parts')


@dataclass(frozen=True)
class BlockResult(Generic[Parts]):
    """What a method made of one block.

    Attributes:
        quantized: float32 (rows, n), exactly what the stored block decodes to.
        parts: whatever the method stores of it.
    """

    quantized: Tensor
    parts: Parts


# (weight block (rows, n), the block's slice of U (n, n), first column) -> what became of it.
BlockQuantizer = Callable[[Tensor, Tensor, int], BlockResult[Parts]]


def prepare(weight: Tensor, hessian: Tensor | None, damping: float) -> tuple[Tensor, Tensor | None]:
    """Zero the weights of dead inputs and factor the damped inverse Hessian.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), or None for white inputs.
        damping: share of the mean diagonal.

    Returns:
        Weight, and U float32 (columns, columns) with ``U^T U = H^-1`` (None without a Hessian).
    """
    if hessian is None:
        return weight, None
    weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
    return weight, feedback_factor(damped(hessian, damping))


def coefficient_dtype(weight: Tensor) -> torch.dtype:
    """The 16-bit dtype that coefficients of a weight are rounded to before the feedback.

    One for the whole layer, so that ``store_scale`` changes nothing any more in the end.
    """
    return store_scale(weight.abs().mean(dim=1)).dtype


def block_ranges(columns: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of blocks of ``size`` columns; the last may be ragged."""
    return [(start, min(start + size, columns)) for start in range(0, columns, size)]


def quantize_blocks(
    weight: Tensor,
    factor: Tensor | None,
    size: int,
    quantize_block: BlockQuantizer[Parts],
    feedback: Feedback = 'diagonal',
) -> tuple[Tensor, list[Parts]]:
    """Quantize block after block, each error made good by the columns that follow.

    ``diagonal`` is the published form, ``E / diag(U)``; ``exact`` is the minimizer for blocks that
    are quantized as one, ``E U_bb^-1``.

    Args:
        weight: float32 (rows, columns), not changed.
        factor: U of :func:`prepare`; None means white inputs, where nothing is fed back.
        size: columns of a block.
        quantize_block: called with the current block, its slice of U (the identity without
            one) and the number of its first column.
        feedback: form of the feedback.

    Returns:
        float32 (rows, columns), the reconstruction, and the parts of each block.
    """
    weight = weight.clone()
    parts = []
    for start, stop in block_ranges(weight.shape[1], size):
        if factor is None:
            corner = torch.eye(stop - start, device=weight.device)
        else:
            corner = factor[start:stop, start:stop]
        block = weight[:, start:stop].clone()
        result = quantize_block(block, corner, start)
        weight[:, start:stop] = result.quantized
        parts.append(result.parts)
        if factor is not None and stop < weight.shape[1]:
            error = feedback_error(block - result.quantized, corner, feedback)
            weight[:, stop:] -= error @ factor[start:stop, stop:]
    return weight, parts


def feedback_error(error: Tensor, corner: Tensor, feedback: Feedback) -> Tensor:
    """The error of a block (rows, n) as the rows of U that follow expect it."""
    if feedback == 'diagonal':
        return error / corner.diagonal()
    return torch.linalg.solve_triangular(corner, error, upper=True, left=False)
