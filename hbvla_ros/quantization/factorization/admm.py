# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Double binary factorization by alternating directions (ADMM) under the Hessian.

Each factor has a real estimate X, which sees the error, a copy Z that is signs times scales, and
a dual U that pulls them together with a penalty that grows from step to step. The two factors take
turns, one step each: many short steps came out far better than solving for one factor at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hbvla_ros.quantization.factorization.start import EigenProblem, low_rank_start

_FIRST_PENALTY, _LAST_PENALTY = 0.15, 1.0
# Damping on top of the Hessian's own that the first step has and the last one has not: the
# directions of most energy leave the others room to move while the signs are still soft.
_FIRST_DAMPING = 0.2
_SOLVER_STEPS = 3
_TINY = 1e-30


def signs_of(values: Tensor) -> Tensor:
    """-1.0 and +1.0; zero counts as +1."""
    return torch.where(values >= 0, 1.0, -1.0)


def alternate(
    problem: EigenProblem, width: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Two factors of signs and scales with little output error.

    Args:
        problem: the layer.
        width: inner width k.
        steps: steps of each factor; the error falls slowly with their number.
        generator: random numbers, on the CPU.

    Returns:
        (rows, k), signs times a scale of each row and one of each column, and (k, columns), signs
        times a scale of each row.
    """
    first, second = low_rank_start(problem.damped(_FIRST_DAMPING), width, generator)
    outer = _OuterFactor(first)
    inner = _InnerFactor(second, problem)
    for step in range(steps):
        passed = step / max(1, steps - 1)
        penalty = _FIRST_PENALTY * (_LAST_PENALTY / _FIRST_PENALTY) ** passed
        present = problem.damped(_FIRST_DAMPING * (1 - passed))
        outer.step(present, inner.turned, penalty)
        inner.step(present, outer.stored, penalty)
    return outer.stored, inner.stored / problem.column_norms


class _OuterFactor:
    """A (rows, k), whose signs have a scale of each row and one of each column.

    Attributes:
        stored: Z.
    """

    def __init__(self, start: Tensor) -> None:
        self.stored = start
        self._dual: Tensor | None = None
        self._right = start.abs().mean(dim=0)

    def step(self, problem: EigenProblem, inner: Tensor, penalty: float) -> None:
        """One step for a given B (k, columns) along the eigenvectors."""
        weighted = inner * problem.values
        gram, norms = _unit_diagonal(weighted @ inner.T)
        gram.diagonal().add_(penalty)
        stored = self.stored * norms
        if self._dual is None:  # as if the start had been the last estimate
            dual, stored = stored, self._project(stored)
            dual = dual - stored
        else:
            dual = self._dual * norms
        right = (problem.weight @ weighted.T) / norms + penalty * (stored - dual)
        estimate = torch.cholesky_solve(right.T, torch.linalg.cholesky(gram)).T
        estimate += dual
        stored = self._project(estimate)
        self._dual = (estimate - stored) / norms
        self.stored = stored / norms

    def _project(self, values: Tensor) -> Tensor:
        """Nearest signs times a rank-one matrix, by power iteration from the last one."""
        magnitude = values.abs()
        right = self._right
        for _ in range(2):
            left = magnitude @ right
            left = left / left.norm().clamp_min(_TINY)
            right = left @ magnitude
        self._right = right
        return signs_of(values) * left[:, None] * right


class _InnerFactor:
    """B (k, columns), whose signs have a scale of each row; in columns of unit input energy.

    Attributes:
        stored: Z.
        turned: Z along the eigenvectors.
    """

    def __init__(self, turned: Tensor, problem: EigenProblem) -> None:
        self._norms = problem.column_norms
        self._vectors = problem.vectors
        self.turned = self._estimate = turned
        self.stored = turned @ problem.vectors.T
        self._dual: Tensor | None = None
        self._dual_turned = turned

    def step(self, problem: EigenProblem, outer: Tensor, penalty: float) -> None:
        """One step for a given A (rows, k)."""
        gram, norms = _unit_diagonal(outer.T @ outer)
        column = norms[:, None]
        if self._dual is None:
            dual, self.stored = self.stored, self._project(self.stored)
            dual = (dual - self.stored) * column
            self.turned = self.stored @ self._vectors
            dual_turned = dual @ self._vectors
        else:
            dual, dual_turned = self._dual * column, self._dual_turned * column
        right = (outer.T @ (problem.weight * problem.values)) / column
        right += penalty * (self.turned * column - dual_turned)
        turned = _solve(gram, problem.values, penalty, right, self._estimate * column)
        estimate = torch.addmm(dual, turned, self._vectors.T)
        stored = self._project(estimate)
        stored_turned = stored @ self._vectors
        self._dual = (estimate - stored) / column
        self._dual_turned = (dual_turned + turned - stored_turned) / column
        self._estimate = turned / column
        self.stored, self.turned = stored / column, stored_turned / column

    def _project(self, values: Tensor) -> Tensor:
        """Nearest signs times a scale of each row times the column norms, which are given."""
        scales = (values.abs() @ self._norms) / self._norms.square().sum()
        return signs_of(values) * scales[:, None] * self._norms


def _unit_diagonal(gram: Tensor) -> tuple[Tensor, Tensor]:
    """A Gram matrix scaled to ones on its diagonal, and the norms taken out of it."""
    norms = gram.diagonal().clamp_min(_TINY).sqrt()
    return gram / norms / norms[:, None], norms


def _solve(gram: Tensor, values: Tensor, penalty: float, right: Tensor, start: Tensor) -> Tensor:
    """X of ``gram X diag(values) + penalty X = right``, nearly.

    A few conjugate gradients from the last solution; the exact one takes an eigenvalue problem in
    each step and brought nothing.
    """
    scaling = 1 / (values + penalty)
    solution = start
    rest = right - (gram @ solution) * values - penalty * solution
    direction = rest * scaling
    energy = float((rest * direction).sum())
    for step in range(_SOLVER_STEPS):
        moved = (gram @ direction) * values + penalty * direction
        curvature = float((direction * moved).sum())
        if not (energy > 0 and curvature > 0 and math.isfinite(energy)):
            break
        solution = solution + energy / curvature * direction
        if step == _SOLVER_STEPS - 1:
            break
        rest = rest - energy / curvature * moved
        scaled = rest * scaling
        before, energy = energy, float((rest * scaled).sum())
        direction = scaled + energy / before * direction
    return solution
