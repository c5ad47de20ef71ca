# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The domain in which signs are chosen: column scale and block Hadamard (spec section 5).

``W = W' T`` with ``T = Hadamard diag(b)``; behind T the Hessian is ``H' = T^-T H T^-1`` and signs
are chosen for W' under H'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.packed.hadamard import block_hadamard, hadamard_blocks, walsh_hadamard
from hbvla_ros.packed.layer import store_scale
from hbvla_ros.packed.log_scales import read_scale, store_log_scale

SMALLEST_SCALE = 1e-3
_POWER_STEPS = 30
_SOLVER_STEPS = 60
_SOLVER_TOLERANCE = 1e-6


@dataclass(frozen=True)
class StoredScale:
    """Scales as they are stored.

    Attributes:
        codes: float16 or bfloat16, or uint8 with a span.
        span: float32 (2,) of 8-bit codes, else None.
    """

    codes: Tensor
    span: Tensor | None

    @staticmethod
    def of(values: Tensor, bits: int) -> StoredScale:
        """Round to 8 or 16 bits."""
        return (
            StoredScale(*store_log_scale(values))
            if bits == 8
            else StoredScale(store_scale(values), None)
        )

    @property
    def values(self) -> Tensor:
        """float32, what is read back."""
        return read_scale(self.codes, self.span)


@dataclass(frozen=True)
class ColumnBasis:
    """Column scale and Hadamard blocks.

    Attributes:
        scale: float32 (columns,), none of them zero, or None for ones.
        hadamard: largest Hadamard block, 1 for none.
    """

    scale: Tensor | None
    hadamard: int

    def inner(self, weight: Tensor) -> Tensor:
        """W' of W, (rows, columns)."""
        scaled = weight if self.scale is None else weight / self.scale
        return block_hadamard(scaled, self.hadamard)

    def outer(self, levels: Tensor) -> Tensor:
        """W of W', (rows, columns)."""
        weight = block_hadamard(levels, self.hadamard)
        return weight if self.scale is None else weight * self.scale

    def target(self, pulled: Tensor) -> Tensor:
        """H' W'^T (columns, rows) of W H (rows, columns)."""
        scaled = pulled if self.scale is None else pulled * self.scale
        return block_hadamard(scaled, self.hadamard).T.contiguous()

    def blocks(self, metric: Tensor) -> list[Tensor]:
        """H' of H, as one stack (1, columns, columns)."""
        if self.scale is not None:
            metric = metric * self.scale[:, None] * self.scale[None, :]
        metric = block_hadamard(block_hadamard(metric, self.hadamard).T, self.hadamard)
        return [((metric + metric.T) / 2)[None]]

    def white_blocks(self, columns: int, like: Tensor) -> list[Tensor]:
        """H' of white inputs, a stack (count, size, size) for each size of Hadamard blocks."""
        scale = like.new_ones(columns) if self.scale is None else self.scale
        blocks = []
        for start, size, count in hadamard_blocks(columns, self.hadamard):
            part = scale[start : start + size * count].view(count, size)
            block = walsh_hadamard(walsh_hadamard(torch.diag_embed(part.square())).mT)
            blocks.append((block + block.mT) / 2)
        return blocks


def balance(weight: Tensor) -> Tensor:
    """Column scale that brings all columns to the same norm, which shared row scales need.

    A power of the inputs' energy on top of it made no layer of the spec's recipe better.
    """
    norms = weight.norm(dim=0)
    mean = float(norms.mean()) or 1.0
    return (norms / mean).clamp_min(SMALLEST_SCALE)


def principal_signs(hessian: Tensor) -> Tensor:
    """Signs of the columns with which the inputs' main common motion has the same sign in all.

    The Hadamard transform then gathers it in the first column of each block, which leaves the
    others less to carry. Signs are part of the column scale and cost nothing.

    Args:
        hessian: (m, m), positive on the diagonal.

    Returns:
        (m,) of -1.0 and +1.0: signs of the leading eigenvector of the correlations.
    """
    deviation = hessian.diagonal().sqrt()
    vector = torch.ones_like(deviation)
    for _ in range(_POWER_STEPS):
        vector = (hessian @ (vector / deviation)) / deviation
        vector = vector / vector.norm()
    return torch.copysign(torch.ones_like(vector), vector)


def refit_scale(
    basis: Tensor, weight: Tensor, metric: Tensor | None, pulled: Tensor, start: Tensor
) -> Tensor:
    """Column scale b with the least error of ``basis diag(b)`` under the Hessian.

    The error is a quadratic in b with the matrix (A^T A) * H, elementwise; it is diagonal where H
    is the identity.

    Args:
        basis: A (rows, columns), levels behind the Hadamard transform.
        weight: (rows, columns).
        metric: (columns, columns), or None for the identity.
        pulled: weight @ metric.
        start: (columns,), the present scale.

    Returns:
        (columns,), none of them closer to zero than a thousandth of the mean.
    """
    if metric is None:
        diagonal = basis.square().sum(dim=0)
        ridge = (1e-9 * diagonal.mean()).clamp_min(1e-30)
        scale = (basis * weight).sum(dim=0) / (diagonal + ridge)
    else:
        scale = _solve((basis.T @ basis) * metric, (basis * pulled).sum(dim=0), start)
    floor = SMALLEST_SCALE * float(scale.abs().mean()) or SMALLEST_SCALE
    return torch.copysign(scale.abs().clamp_min(floor), scale)


def _solve(normal: Tensor, right: Tensor, start: Tensor) -> Tensor:
    """Solution of a positive definite system by conjugate gradients with a diagonal scaling.

    The matrix is far from singular behind that scaling, so that a few tens of products with it
    do; a factorization would take as long as all that is done with the result.
    """
    ridge = (1e-9 * normal.diagonal().mean()).clamp_min(1e-30)
    scaling = (normal.diagonal() + ridge).rsqrt()

    def product(vector: Tensor) -> Tensor:
        moved = scaling * vector
        return scaling * (normal @ moved + ridge * moved)

    goal = scaling * right
    solution = start / scaling
    rest = goal - product(solution)
    direction, energy = rest, rest @ rest
    enough = _SOLVER_TOLERANCE**2 * float(goal @ goal)
    for _ in range(_SOLVER_STEPS):
        if float(energy) <= enough:
            break
        moved = product(direction)
        step = energy / (direction @ moved)
        solution = solution + step * direction
        rest = rest - step * moved
        before, energy = energy, rest @ rest
        direction = rest + energy / before * direction
    return scaling * solution
