# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Order of columns that puts similar ones in one Haar pair: Algorithm 1 of HBVLA (spec 1.5).

What the paper leaves open is settled so (A-10, A-11): one norm is both the visiting order and the
distance, the first pair formed begins the chain, and the lowest column wins among equals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hbvla_ros.quantization.binary.saliency import Norm


def column_norms(weight: Tensor, norm: Norm) -> Tensor:
    """l1 or l2 norm of each column of (rows, n), float32 (n,)."""
    return weight.abs().sum(dim=0) if norm == 'l1' else weight.norm(dim=0)


def sort_by_norm(weight: Tensor, norm: Norm) -> Tensor:
    """All columns by falling norm, int64 (n,); the lower of equals first."""
    return column_norms(weight, norm).argsort(descending=True, stable=True)


def column_distances(weight: Tensor, norm: Norm) -> Tensor:
    """Distance of each column to each other.

    Args:
        weight: float32 (rows, n).
        norm: 'l2' gives squared distances by one matrix product; 'l1' has no such short cut and
            takes rows * n^2 steps, minutes for a whole layer of 4096 columns.

    Returns:
        float32 (n, n), none negative.
    """
    if norm == 'l1':
        columns = weight.T.contiguous()
        return torch.cdist(columns, columns, p=1.0)
    squares = weight.square().sum(dim=0)
    distances = (weight.T @ weight).mul_(-2)
    return distances.add_(squares[:, None]).add_(squares[None, :]).clamp_min_(0)


def haar_order(weight: Tensor, norm: Norm = 'l2', chaining: bool = True) -> Tensor:
    """Algorithm 1: pair each column with its nearest unused one, then chain the pairs.

    Columns 2 k and 2 k + 1 of the result are a pair. The column that an odd number leaves over
    comes last, where it shifts no pair.

    The paper also lets a column choose among its K nearest neighbours only, or among all unused
    columns when none of those is left. That is no choice: the nearest unused column is one of the K
    whenever any of them is unused.

    Args:
        weight: float32 (rows, n), n >= 1.
        norm: of the visiting order (largest first) and of the distance.
        chaining: False leaves the pairs in the order in which they were formed. Inside one block
            of columns the chain only turns pairs around, that is the signs of high coefficients;
            over several blocks it decides which pairs share one (A-13).

    Returns:
        int64 (n,), every column once.
    """
    distances = column_distances(weight, norm)
    order = _pairs(distances, sort_by_norm(weight, norm).tolist())
    if chaining:
        order = _chain(distances, order)
    return torch.tensor(order, dtype=torch.long, device=weight.device)


def _pairs(distances: Tensor, visits: list[int]) -> list[int]:
    """Columns pair after pair, a column left over last."""
    used = torch.zeros(len(distances), device=distances.device)  # infinite where used
    free = [True] * len(visits)
    order: list[int] = []
    for column in visits:
        if not free[column]:
            continue
        used[column] = torch.inf
        free[column] = False
        order.append(column)
        if len(order) == len(visits):
            break
        partner = int((distances[column] + used).argmin())
        used[partner] = torch.inf
        free[partner] = False
        order.append(partner)
    return order


def _chain(distances: Tensor, order: list[int]) -> list[int]:
    """Reorder the pairs so that each begins near the end of the one before."""
    whole = len(order) // 2 * 2
    partner = dict(zip(order[0:whole:2], order[1:whole:2], strict=True))
    partner |= {second: first for first, second in partner.items()}
    used = torch.zeros(len(distances), device=distances.device)
    chained = order[:2]
    used[order[:2] + order[whole:]] = torch.inf
    while len(chained) < whole:
        near = int((distances[chained[-1]] + used).argmin())
        ends = [near, partner[near]]
        used[ends] = torch.inf
        chained += ends
    return chained + order[whole:] if whole else order
