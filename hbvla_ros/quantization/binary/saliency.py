# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Salient columns of a block: score, how many, and what stands in their place (spec 1.3, 1.4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hbvla_ros.quantization.binary.residual import order2_error

Norm = Literal['l1', 'l2']

_WINDOW = 3
# Rows at a time in the search: what one step works on stays in the cache.
_TILE = 256


def hessian_score(weight: Tensor, factor: Tensor) -> Tensor:
    """``w_ij^2 / U_jj^2``, the optimal-brain-surgeon saliency (spec A-6), (rows, n).

    Args:
        weight: float32 (rows, n), one block.
        factor: float32 (n, n), the block's slice of the factor U of the inverse Hessian.
    """
    return (weight / factor.diagonal()).square()


def rank_columns(score: Tensor, norm: Norm) -> Tensor:
    """All columns by falling norm of their scores, int64 (n,); the lower index first of equals."""
    sizes = score.abs().sum(dim=0) if norm == 'l1' else score.norm(dim=0)
    return sizes.argsort(descending=True, stable=True)


def search_salient(score: Tensor, norm: Norm, candidates: int) -> Tensor:
    """The salient columns by the official search on the score matrix.

    Tries the top 1 to ``candidates - 1`` columns: scores of the salient and of the other columns
    are binarized to order 2, each for themselves; the count with the least squared error wins, the
    smallest of equals.

    Args:
        score: float32 (rows, n).
        norm: of the columns, for the ranking.
        candidates: number of candidates; no more than there are columns are taken.

    Returns:
        int64 (c,), most salient first; none in a block of one column.
    """
    ranking = rank_columns(score, norm)
    last = min(candidates, score.shape[1])
    if last < 2:
        return ranking[:0]
    errors = torch.zeros(last - 1, dtype=torch.float64, device=score.device)
    for tile in score.split(_TILE):
        ordered = tile.T[ranking]
        errors += torch.stack(
            [
                order2_error(ordered[:count]).sum() + order2_error(ordered[count:]).sum()
                for count in range(1, last)
            ]
        )
    return ranking[: int(errors.argmin()) + 1]


def other_columns(salient: Tensor, columns: int) -> Tensor:
    """The columns that are not salient in rising order, int64."""
    rest = torch.ones(columns, dtype=torch.bool, device=salient.device)
    rest[salient] = False
    return rest.nonzero().squeeze(1)


def fill_salient(block: Tensor, salient: Tensor) -> Tensor:
    """Put averages of their neighbours in the place of the salient columns (spec 1.4).

    Each becomes the mean of the non-salient columns at most three away; without any, the nearest
    non-salient column to the left, else to the right; zero where all columns are salient.

    Args:
        block: float32 (rows, n).
        salient: int64 (c,).

    Returns:
        float32 (rows, n), a copy.
    """
    filled = block.clone()
    columns = block.shape[1]
    others = other_columns(salient, columns)
    if not len(others):
        return filled.zero_()
    for column in salient.tolist():
        near = others[(others - column).abs() <= _WINDOW]
        if not len(near):
            left, right = others[others < column], others[others > column]
            near = left[-1:] if len(left) else right[:1]
        filled[:, column] = block[:, near].mean(dim=1)
    return filled
