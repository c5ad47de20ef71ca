# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Descent over the signs and scales of a double binary factorization under the Hessian.

``W ~ diag(a) S1 diag(c) S2``; no step makes the output error larger, but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.quantization.factorization.admm import signs_of
from hbvla_ros.quantization.sign_search import SignSearch

_PANEL = 64
# Inner rows change together in so many turns: S1 makes them nearly, not fully independent.
_TURNS = 4
_RIDGE = 1e-7


@dataclass
class DoubleSigns:
    """A double binary factorization of a layer.

    Attributes:
        outer_signs: S1 (rows, k) of -1.0 and +1.0.
        inner_signs: S2 (k, columns).
        row_scales: a (rows,).
        inner_scales: c (k,).
    """

    outer_signs: Tensor
    inner_signs: Tensor
    row_scales: Tensor
    inner_scales: Tensor

    @staticmethod
    def of(outer: Tensor, inner: Tensor) -> DoubleSigns:
        """Take apart the factors.

        Args:
            outer: (rows, k), signs times a scale of each row and one of each column.
            inner: (k, columns), signs times a scale of each row.
        """
        rows = outer.abs().mean(dim=1)
        # Each entry is row scale * column scale, so that both means carry the mean of the other.
        mean = rows.mean().clamp_min(torch.finfo(rows.dtype).tiny)
        scales = outer.abs().mean(dim=0) / mean * inner.abs().mean(dim=1)
        return DoubleSigns(signs_of(outer), signs_of(inner), rows, scales)

    def levels(self) -> Tensor:
        """The weight it stands for, (rows, columns)."""
        outer = self.outer_signs * self.row_scales[:, None]
        return (outer * self.inner_scales) @ self.inner_signs


class Descent:
    """Improves a factorization of one layer step by step.

    Attributes:
        signs: the factorization.
    """

    def __init__(self, signs: DoubleSigns, weight: Tensor, metric: Tensor) -> None:
        """Start from a factorization.

        Args:
            signs: what to improve, in place.
            weight: float32 (rows, columns).
            metric: float32 (columns, columns), positive definite.
        """
        self.signs = signs
        self.move(weight, metric)

    def move(self, weight: Tensor, metric: Tensor) -> None:
        """Take the same layer in a new basis; signs and scales stay."""
        self._weight, self._metric = weight, metric
        self._pulled = weight @ metric
        self._energy = (self._pulled * weight).sum(dim=1, dtype=torch.float64)

    def error(self) -> float:
        """Relative output error."""
        rest = self._weight - self.signs.levels()
        error = ((rest @ self._metric) * rest).sum(dtype=torch.float64)
        total = self._energy.sum()
        return float(error / total) if float(total) > 0 else 0.0

    def sweep_outer(self, fit_scales: bool = True) -> None:
        """Set each column of S1 to its best signs with all others held, then fit a."""
        signs = self.signs
        inner = signs.inner_signs * signs.inner_scales[:, None]
        search = SignSearch(
            signs.outer_signs.T.contiguous()[None], signs.row_scales[None], self._energy
        )
        gram = inner @ self._metric @ inner.T
        search.move(inner @ self._pulled.T, [((gram + gram.T) / 2)[None]])
        search.sweep()
        if fit_scales:
            search.fit_scales()
        signs.outer_signs = search.signs[0].T.contiguous()
        signs.row_scales = search.scales[0]

    def sweep_inner(self) -> None:
        """Set each column of S2 to its best signs with all other columns held.

        Within a column, the rows are set in a few turns: what the others of the same turn do is
        not seen. That is an approximation; the caller compares errors.
        """
        outer = self._outer()
        coupling = outer.T @ outer
        block = self._metric
        signs = self.signs.inner_signs.T.contiguous()
        gradient = (outer.T @ self._pulled).T - block @ (signs @ coupling)
        turns = [
            torch.arange(turn, len(coupling), _TURNS, device=signs.device)
            for turn in range(min(_TURNS, len(coupling)))
        ]
        diagonal = block.diagonal().tolist()
        for start in range(0, len(block), _PANEL):
            part = slice(start, min(start + _PANEL, len(block)))
            before = signs[part].clone()
            panel = gradient[part].clone()
            for j in range(len(panel)):
                change = _set_column(
                    signs[start + j], panel[j], diagonal[start + j], coupling, turns
                )
                within = block[start + j, start + j + 1 : part.stop]
                panel[j + 1 :].addr_(within, change, alpha=-1)
            gradient -= block[:, part] @ ((signs[part] - before) @ coupling)
        self.signs.inner_signs = signs.T.contiguous()

    def fit_inner_scales(self) -> None:
        """The inner scales c with the least error for all else as it is."""
        signs = self.signs
        outer = signs.outer_signs * signs.row_scales[:, None]
        inner = signs.inner_signs
        normal = ((outer.T @ outer) * (inner @ self._metric @ inner.T)).double()
        right = ((outer.T @ self._pulled) * inner).sum(dim=1, dtype=torch.float64)
        ridge = _RIDGE * normal.diagonal().mean() + torch.finfo(torch.float64).tiny ** 0.5
        normal.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(normal)
        if int(failed) == 0:
            signs.inner_scales = torch.cholesky_solve(right[:, None], factor)[:, 0].float()

    def _outer(self) -> Tensor:
        """diag(a) S1 diag(c)."""
        signs = self.signs
        return signs.outer_signs * signs.row_scales[:, None] * signs.inner_scales


def _set_column(
    signs: Tensor, gradient: Tensor, curvature: float, coupling: Tensor, turns: list[Tensor]
) -> Tensor:
    """Set one column of S2 to its best signs, turn by turn.

    Args:
        signs: (k,), changed in place.
        gradient: (k,), pull on each sign with the present ones; spent.
        curvature: diagonal of the Hessian at this column.
        coupling: A^T A (k, k).
        turns: indices of the rows that change together.

    Returns:
        (k,): coupling @ change of the signs.
    """
    own = coupling.diagonal() * curvature
    moved = torch.zeros_like(gradient)
    for turn in turns:
        present = signs[turn]
        wanted = signs_of(present * own[turn] + gradient[turn])
        changed = (wanted != present).nonzero()[:, 0]
        if len(changed) == 0:
            continue
        signs[turn] = wanted
        change = (wanted - present)[changed] @ coupling[turn[changed]]
        moved += change
        gradient -= curvature * change
    return moved
