# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Steps of ``signplane`` over a whole layer, whose rows may have different numbers of planes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.quantization.column_basis import ColumnBasis, refit_scale
from hbvla_ros.quantization.hessian import damped, error_factor
from hbvla_ros.quantization.sign_search import SignSearch
from hbvla_ros.quantization.signs import Rounder, error_feedback, initial_scales


@dataclass
class Problem:
    """A layer: what stays the same while signs and scales change.

    Attributes:
        weight: float32 (rows, columns), zero where the inputs never moved.
        metric: damped Hessian, or None for the identity.
        pulled: weight @ metric.
        energy: float64 (rows,), error of all zeros.
    """

    weight: Tensor
    metric: Tensor | None
    pulled: Tensor
    energy: Tensor

    @staticmethod
    def of(weight: Tensor, hessian: Tensor | None, damping: float) -> Problem:
        """Take a layer.

        Args:
            weight: float32 (rows, columns).
            hessian: float32 (columns, columns), or None for white inputs.
            damping: share of the Hessian's mean diagonal that is added to it.
        """
        metric = None if hessian is None else damped(hessian, damping)
        pulled = weight if metric is None else weight @ metric
        return Problem(weight, metric, pulled, (pulled * weight).sum(dim=1, dtype=torch.float64))

    def blocks(self, basis: ColumnBasis) -> list[Tensor]:
        """The Hessian in a basis, as diagonal blocks."""
        if self.metric is None:
            return basis.white_blocks(self.weight.shape[1], self.weight)
        return basis.blocks(self.metric)


@dataclass
class Group:
    """Rows with the same number of planes.

    Attributes:
        rows: their indices.
        search: signs and row scales of them.
    """

    rows: Tensor
    search: SignSearch


def start_groups(problem: Problem, basis: ColumnBasis, counts: Tensor) -> list[Group]:
    """Signs by error feedback and row scales fitted to them.

    Args:
        problem: the layer.
        basis: where the signs are chosen.
        counts: integers (rows,), planes of each row.
    """
    blocks = problem.blocks(basis)
    factors = [error_factor(block) for block in blocks]
    inner = basis.inner(problem.weight).T.contiguous()
    groups = []
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero().flatten()
        part = inner[:, rows]
        scales = initial_scales(part.T, count)
        signs = Rounder(scales).signs(_feedback(part, factors, scales))
        groups.append(Group(rows, SignSearch(signs, scales, problem.energy[rows])))
    _move(problem, basis, groups, blocks)
    return groups


def move_groups(problem: Problem, basis: ColumnBasis, groups: list[Group]) -> None:
    """Take signs as they are to another basis and fit the row scales there."""
    _move(problem, basis, groups, problem.blocks(basis))


def refit_columns(problem: Problem, basis: ColumnBasis, groups: list[Group]) -> Tensor:
    """Column scale (columns,) with the least error for the present signs and row scales."""
    assert basis.scale is not None
    levels = torch.empty_like(problem.weight)
    for group in groups:
        levels[group.rows] = group.search.levels().T
    return refit_scale(
        ColumnBasis(None, basis.hadamard).outer(levels),
        problem.weight,
        problem.metric,
        problem.pulled,
        basis.scale,
    )


def _feedback(inner: Tensor, factors: list[Tensor], scales: Tensor) -> Tensor:
    """Levels (columns, rows) by error feedback, stack of blocks by stack."""
    levels, start = [], 0
    for factor in factors:
        stop = start + factor.shape[0] * factor.shape[1]
        stack = inner[start:stop].unflatten(0, factor.shape[:2])
        levels.append(error_feedback(stack, factor, scales).flatten(0, 1))
        start = stop
    return torch.cat(levels)


def _move(problem: Problem, basis: ColumnBasis, groups: list[Group], blocks: list[Tensor]) -> None:
    """Take groups to a basis whose blocks of the Hessian are already there."""
    for group in groups:
        group.search.move(basis.target(problem.pulled[group.rows]), blocks)
        group.search.fit_scales()
