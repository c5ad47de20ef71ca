# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Search for signs and row scales with little error under a Hessian (spec section 5).

For given columns the rows are independent of each other: each looks for signs s_p and scales a_p
with the least ``(w - sum_p a_p s_p)^T H (w - sum_p a_p s_p)``. Everything is transposed, (columns,
rows), so that what one step of a sweep reads and writes lies together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.quantization.signs import PANEL, Rounder, combine, subtract_outer


@dataclass
class _Kept:
    """A state to go back to, row by row."""

    signs: Tensor
    scales: Tensor
    curved: Tensor
    errors: Tensor


class SignSearch:
    """Signs and row scales of rows that have the same number of planes P.

    Attributes:
        signs: (P, columns, rows) of -1.0 and +1.0.
        scales: (P, rows).
    """

    def __init__(self, signs: Tensor, scales: Tensor, energy: Tensor) -> None:
        """Start from given signs; :meth:`move` must come next.

        Args:
            signs: (P, columns, rows).
            scales: (P, rows).
            energy: float64 (rows,), ``w^T H w`` of each row, which no change of basis alters.
        """
        self.signs, self.scales, self._energy = signs, scales, energy
        self._blocks: Sequence[Tensor] = ()
        self._target = self._curved = signs
        self._kept: _Kept | None = None

    def move(self, target: Tensor, blocks: Sequence[Tensor]) -> None:
        """Take the problem in a new basis; signs and scales stay.

        Args:
            target: (columns, rows), H W^T.
            blocks: the Hessian as diagonal blocks in the order of the columns, those of the same
                size together: (count, size, size).
        """
        self._target, self._blocks, self._kept = target, blocks, None
        self._curved = torch.empty_like(self.signs)
        for block, signs, curved in self._parts(self.signs, self._curved):
            for plane, product in zip(signs, curved, strict=True):
                torch.bmm(block, plane, out=product)

    def levels(self) -> Tensor:
        """(columns, rows), what signs and scales make."""
        return combine(self.signs, self.scales)

    def fit_scales(self) -> None:
        """Row scales with the least error for the present signs."""
        gram, right = self._normal()
        # Two equal planes make the system singular; the ridge is far below float32 rounding.
        ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        gram = gram + ridge[:, None, None] * torch.eye(
            len(self.scales), dtype=gram.dtype, device=gram.device
        )
        # A row that no input moves has a system of zeros.
        gram.diagonal(dim1=1, dim2=2).clamp_min_(torch.finfo(torch.float64).tiny ** 0.5)
        self.scales = torch.linalg.solve(gram, right[..., None])[..., 0].T.float().contiguous()

    def errors(self) -> Tensor:
        """float64 (rows,): the error of each row."""
        gram, right = self._normal()
        scales = self.scales.T.double()
        curved = (gram @ scales[..., None])[..., 0]
        return self._energy + (scales * (curved - 2 * right)).sum(dim=1)

    def sweep(self, kick: float = 0.0, generator: torch.Generator | None = None) -> None:
        """Set every column to its best levels with all others held.

        Without a kick no row's error rises.

        Args:
            kick: deviation of random numbers on what is rounded, in units of half the distance of
                the closest levels.
            generator: where they come from; on the device of the weights.
        """
        rounder = Rounder(self.scales)
        for block, signs, curved, target in self._parts(
            self.signs, self._curved, self._target[None]
        ):
            for start in range(0, block.shape[1], PANEL):
                here = slice(start, start + PANEL)
                old = combine(signs[:, :, here], self.scales)
                gradient = target[0, :, here] - combine(curved[:, :, here], self.scales)
                noise = None
                if kick:
                    noise = torch.empty_like(old).normal_(generator=generator)
                    noise *= kick * rounder.step
                new = _round_panel(old, gradient, block[:, here, here], rounder, noise)
                found = rounder.signs(new)
                change = found - signs[:, :, here]
                signs[:, :, here] = found
                for plane, moved in zip(curved, change, strict=True):
                    plane.baddbmm_(block[:, :, here], moved)

    def descend(self, sweeps: int) -> None:
        """Sweeps without a kick, each followed by a fit of the row scales."""
        for _ in range(sweeps):
            self.sweep()
            self.fit_scales()

    def leave_minimum(
        self, kicks: int, strength: float, sweeps: int, generator: torch.Generator
    ) -> None:
        """Kick, descend again, and go back in the rows that came out worse.

        Args:
            kicks: sweeps with a kick, which fades from the first to the last.
            strength: kick of the first of them.
            sweeps: sweeps without afterwards.
            generator: where the random numbers come from.
        """
        self.keep()
        for number in range(kicks):
            self.sweep(strength * (1 - number / kicks), generator)
            self.fit_scales()
        self.descend(sweeps)
        self.restore_worse()

    def keep(self) -> None:
        """Remember the present state for :meth:`restore_worse`."""
        self._kept = _Kept(
            self.signs.clone(), self.scales.clone(), self._curved.clone(), self.errors()
        )

    def restore_worse(self) -> None:
        """Go back to the state kept in the rows whose error has risen since."""
        kept, self._kept = self._kept, None
        assert kept is not None
        worse = self.errors() > kept.errors
        self.signs = torch.where(worse, kept.signs, self.signs)
        self._curved = torch.where(worse, kept.curved, self._curved)
        self.scales = torch.where(worse, kept.scales, self.scales)

    def _parts(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Each stack of blocks with the parts of (P, columns, rows) that it belongs to.

        Yields:
            The stack (count, size, size), then (P, count, size, rows) of each tensor, a view.
        """
        start = 0
        for block in self._blocks:
            count, size = block.shape[:2]
            stop = start + count * size
            yield block, *(t[:, start:stop].unflatten(1, (count, size)) for t in tensors)
            start = stop

    def _normal(self) -> tuple[Tensor, Tensor]:
        """Normal equations of the scales: float64 (rows, P, P) and (rows, P)."""
        gram = torch.stack(
            [
                torch.stack([_dot(plane, curved) for curved in self._curved], dim=-1)
                for plane in self.signs
            ],
            dim=-2,
        )
        right = torch.stack([_dot(plane, self._target) for plane in self.signs], dim=-1)
        return gram, right


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Sum over the columns of products, float64 (rows,)."""
    return (first * second).sum(dim=0, dtype=torch.float64)


def _round_panel(
    old: Tensor, gradient: Tensor, block: Tensor, rounder: Rounder, noise: Tensor | None
) -> Tensor:
    """One panel of columns set to the best levels one after the other.

    Args:
        old: (count, n, rows), present levels.
        gradient: (count, n, rows), H times the present error; spent.
        block: (count, n, n), the part of the Hessian.
        rounder: rounds to levels.
        noise: (count, n, rows), added to what is rounded, or None.

    Returns:
        (count, n, rows), the new levels.
    """
    new = torch.empty_like(old)
    step = block.diagonal(dim1=1, dim2=2).reciprocal()
    for j in range(block.shape[1]):
        wanted = torch.addcmul(old[:, j], gradient[:, j], step[:, j, None])
        if noise is not None:
            wanted += noise[:, j]
        level = rounder.nearest(wanted)
        new[:, j] = level
        subtract_outer(gradient[:, j + 1 :], block[:, j, j + 1 :], level - old[:, j])
    return new
