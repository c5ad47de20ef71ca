# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Number of salient columns by the error that each number really leaves (spec 1.3, A-8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40)

Trial = TypeVar('Trial')


def salient_counts(columns: int, candidates: int, pairs: bool, most: int) -> list[int]:
    """Numbers of salient columns to try in one block, rising.

    Args:
        columns: of the block.
        candidates: columns that may be salient.
        pairs: leave an even number of other columns, so that each of them has its Haar partner;
            a number that would not is raised by one.
        most: largest number allowed.

    Returns:
        At least one number; 0 is among them unless it would leave an odd one over.
    """
    highest = min(candidates, columns, most)
    wanted = {min(count, highest) for count in COUNTS}
    if pairs:
        wanted = {count + (columns - count) % 2 for count in wanted}
    return sorted(count for count in wanted if count <= columns)


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
