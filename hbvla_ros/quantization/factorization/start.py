# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Real factors to start a double binary factorization from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

# Share of the largest eigenvalue below which an input direction counts as this share.
_FLOOR = 1e-7
_POWER_STEPS = 1


@dataclass(frozen=True)
class EigenProblem:
    """A layer whose columns are scaled to unit input energy, seen along the inputs' eigenvectors.

    With ``H = diag(h) Q diag(l) Q^T diag(h)`` the error of W is ``sum_j l_j ||E diag(h) Q_j||^2``.

    Attributes:
        column_norms: h (columns,), root of the diagonal of the Hessian.
        vectors: Q (columns, columns), orthonormal.
        values: l (columns,), positive.
        weight: W diag(h) Q, (rows, columns).
    """

    column_norms: Tensor
    vectors: Tensor
    values: Tensor
    weight: Tensor

    @staticmethod
    def of(weight: Tensor, metric: Tensor) -> EigenProblem:
        """Take a layer.

        Args:
            weight: float32 (rows, columns).
            metric: float32 (columns, columns), positive definite.
        """
        norms = metric.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(metric / norms / norms[:, None])
        values = values.clamp_min(_FLOOR * float(values[-1]))
        return EigenProblem(norms, vectors, values, (weight * norms) @ vectors)

    def damped(self, damping: float) -> EigenProblem:
        """The same layer with more damping of its Hessian, as a share of the mean diagonal."""
        return dataclasses.replace(self, values=self.values + damping)

    def error(self, factored: Tensor) -> float:
        """Relative output error of a weight given as ``W diag(h) Q``."""
        rest = ((self.weight - factored).square() @ self.values).sum()
        total = (self.weight.square() @ self.values).sum()
        return float(rest / total) if float(total) > 0 else 0.0


def low_rank_start(
    problem: EigenProblem, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Real factors A B near the best of their width, in a random rotation of the inner space.

    Power iteration on a random subspace finds the leading directions of the whitened weight well
    enough: the exact singular vectors led to the same errors. The rotation spreads the energy
    evenly, so that no inner row starts with next to nothing.

    Args:
        problem: the layer.
        width: inner width k; may be larger than rows and columns.
        generator: random numbers, on the CPU.

    Returns:
        A (rows, k) and B (k, columns), the latter along the eigenvectors like ``problem.weight``.
    """
    rows, columns = problem.weight.shape
    device = problem.weight.device
    roots = problem.values.sqrt()
    whitened = problem.weight * roots
    rank = min(width, rows, columns)
    sample = whitened @ torch.randn(columns, rank, generator=generator).to(device)
    for _ in range(_POWER_STEPS):
        sample = whitened @ (whitened.T @ torch.linalg.qr(sample)[0])
    leading = torch.linalg.qr(sample)[0]
    turned = torch.linalg.qr(torch.randn(width, rank, generator=generator))[0].T.to(device)
    return leading @ turned, turned.T @ (leading.T @ whitened) / roots
