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

from hbvla_ros.quantization.signs import Rounder, combine, subtract_outer

# Columns that are annealed together, and those of them that are updated one by one.
PANEL = 128
_STRIP = 32


@dataclass(frozen=True)
class Kicks:
    """Random numbers with which panels of columns leave a local minimum.

    Attributes:
        count: passes over a panel with random numbers; they fade from the first to the last.
        strength: their deviation in the first pass, in units of half the distance of the closest
            levels.
        generator: where they come from; on the device of the weights.
    """

    count: int
    strength: float
    generator: torch.Generator


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

    def move(self, target: Tensor, blocks: Sequence[Tensor]) -> None:
        """Take the problem in a new basis; signs and scales stay.

        Args:
            target: (columns, rows), H W^T.
            blocks: the Hessian as diagonal blocks in the order of the columns, those of the same
                size together: (count, size, size).
        """
        self._target, self._blocks = target, blocks
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

    def sweep(self, kicks: Kicks | None = None) -> None:
        """Set every column to its best levels with all others held; no row's error rises.

        With kicks each panel of columns is annealed while the other panels are held, and rows in
        which that did not help stay as they are. That is nearly free: what takes time in a wide
        layer is to tell the other panels what changed.
        """
        rounder = Rounder(self.scales)
        for block, signs, curved, target in self._parts(
            self.signs, self._curved, self._target[None]
        ):
            for start in range(0, block.shape[1], PANEL):
                here = slice(start, start + PANEL)
                panel = _Panel(
                    combine(signs[:, :, here], self.scales),
                    target[0, :, here] - combine(curved[:, :, here], self.scales),
                    block[:, here, here],
                )
                found = rounder.signs(panel.anneal(rounder, kicks))
                change = found - signs[:, :, here]
                signs[:, :, here] = found
                for plane, moved in zip(curved, change, strict=True):
                    plane.baddbmm_(block[:, :, here], moved)

    def improve(self, sweeps: int, kicks: Kicks | None = None) -> None:
        """Sweeps, each followed by a fit of the row scales."""
        for _ in range(sweeps):
            self.sweep(kicks)
            self.fit_scales()

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


class _Panel:
    """Some columns of each of a stack of blocks, while all others are held.

    Attributes:
        levels: (count, n, rows).
        gradient: (count, n, rows), H times the present error.
        block: (count, n, n), the part of the Hessian.
    """

    def __init__(self, levels: Tensor, gradient: Tensor, block: Tensor) -> None:
        self.levels, self.gradient, self.block = levels, gradient, block
        self._step = block.diagonal(dim1=1, dim2=2).reciprocal()

    def anneal(self, rounder: Rounder, kicks: Kicks | None) -> Tensor:
        """Passes with fading kicks and one without; the best of old and new levels of each row."""
        if kicks is None or not kicks.count:
            self._settle(rounder, None)
            return self.levels
        old, before = self.levels.clone(), self.gradient.clone()
        for number in range(kicks.count):
            strength = kicks.strength * (1 - number / kicks.count)
            noise = torch.empty_like(old).normal_(generator=kicks.generator)
            self._settle(rounder, noise.mul_(strength * rounder.step))
        self._settle(rounder, None)
        # The error of a row changes by -d (g_old + g_new) with the change d of its levels.
        gain = ((self.levels - old) * (before + self.gradient)).sum(dim=(0, 1))
        return torch.where(gain > 0, self.levels, old)

    def _settle(self, rounder: Rounder, noise: Tensor | None) -> None:
        """Set the columns to their best levels one after the other, with noise on what is best."""
        for start in range(0, self.block.shape[1], _STRIP):
            stop = min(start + _STRIP, self.block.shape[1])
            block = self.block[:, start:stop, start:stop]
            levels, gradient = self.levels[:, start:stop], self.gradient[:, start:stop].clone()
            change = torch.empty_like(gradient)
            for j in range(stop - start):
                wanted = torch.addcmul(levels[:, j], gradient[:, j], self._step[:, start + j, None])
                if noise is not None:
                    wanted += noise[:, start + j]
                level = rounder.nearest(wanted)
                torch.sub(level, levels[:, j], out=change[:, j])
                levels[:, j] = level
                subtract_outer(gradient[:, j + 1 :], block[:, j, j + 1 :], change[:, j])
            self.gradient.baddbmm_(self.block[:, :, start:stop], change, alpha=-1)
