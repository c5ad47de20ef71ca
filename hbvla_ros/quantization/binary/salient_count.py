# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Number of salient columns by the error that each number really leaves (spec 1.3, A-8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40)

Trial = TypeVar('Trial')


def salient_counts(wanted: Sequence[int], columns: int, most: int, pairs: bool) -> list[int]:
    """Numbers of salient columns that one block can have.

    Args:
        wanted: numbers of them.
        columns: of the block.
        most: larger numbers are lowered to this one.
        pairs: leave an even number of other columns, so that each of them has its Haar partner;
            a number that would not is raised by one.

    Returns:
        Those nearest to the wanted ones, rising, each once.
    """
    counts = {min(count, most, columns) for count in wanted}
    if pairs:
        counts = {count + (columns - count) % 2 for count in counts}
    return sorted(counts)


def best_salient(
    ranking: Tensor, counts: list[int], trial: Callable[[Tensor], tuple[float, Trial]]
) -> Trial:
    """Quantize with each number of salient columns and keep the best, the fewest of equals.

    Args:
        ranking: int64 (n,), columns by falling saliency.
        counts: numbers to try, rising, at least one.
        trial: quantizes with the given salient columns; returns its error and what it made.

    Returns:
        What the best trial made.
    """
    best: tuple[float, Trial] | None = None
    for count in counts:
        result = trial(ranking[:count])
        if best is None or result[0] < best[0]:
            best = result
    assert best is not None, 'counts holds at least one number'
    return best[1]


def weighted_error(error: Tensor, factor: Tensor) -> float:
    """``sum_ij e_ij^2 / U_jj^2``: what errors cost, each for itself.

    Args:
        error: float32 (rows, n).
        factor: float32 (n, n), the block's slice of the factor U of the inverse Hessian.
    """
    return float((error / factor.diagonal()).square().sum(dtype=torch.float64))


def joint_error(error: Tensor, factor: Tensor) -> float:
    """``||E U_bb^-1||^2``: what the errors cost once later columns have made them good.

    Args:
        error: float32 (rows, n).
        factor: float32 (n, n), the block's slice of the factor U of the inverse Hessian.
    """
    carried = torch.linalg.solve_triangular(factor, error, upper=True, left=False)
    return float(carried.square().sum(dtype=torch.float64))
