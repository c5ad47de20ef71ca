# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Rounding of weights to sums of row scales with signs (spec section 5).

All functions work on float32 matrices in the domain in which the signs are stored.
``levels`` are what a row's weights can be: every sum of its row scales with signs.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

# Columns whose changes reach the others in one matrix product.
_PANEL = 64


def sign_patterns(planes: int, device: torch.device | None = None) -> Tensor:
    """(2^planes, planes): every combination of signs."""
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=planes)), device=device)


def initial_scales(weight: Tensor, planes: int) -> Tensor:
    """Row scales of greedy residual sign planes: mean of the absolute residual.

    Args:
        weight: (rows, columns).
        planes: number of planes P.

    Returns:
        (P, rows).
    """
    residual, scales = weight, []
    for _ in range(planes):
        scale = residual.abs().mean(dim=1)
        residual = residual - torch.copysign(scale[:, None], residual)
        scales.append(scale)
    return torch.stack(scales)


class Rounder:
    """Nearest levels of columns of weights, for scales that stay as they are.

    Attributes:
        step: (rows,), the smallest scale of each row: half the distance of its closest levels.
    """

    def __init__(self, scales: Tensor) -> None:
        """Sort the levels of each row.

        Args:
            scales: (P, rows), any sign.
        """
        self._scales = scales
        self.step = scales.abs().amin(dim=0)
        if len(scales) == 1:
            self._single = scales[0].abs()
            return
        levels = sign_patterns(len(scales), scales.device) @ scales
        self._levels, self._order = levels.sort(dim=0)
        self._between = (self._levels[1:] + self._levels[:-1]) / 2

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest level of each value, (n, rows) to (n, rows)."""
        if len(self._scales) == 1:
            return torch.copysign(self._single, values)
        place = (values > self._between[:, None]).sum(dim=0)
        return self._levels.gather(0, place)

    def signs(self, levels: Tensor) -> Tensor:
        """The signs that make levels.

        Args:
            levels: (..., rows), each one of its row's levels or near to it.

        Returns:
            (P, ..., rows) of -1.0 and +1.0.
        """
        if len(self._scales) == 1:
            return torch.copysign(torch.ones_like(levels), levels * self._scales[0].sign())[None]
        place = torch.zeros_like(levels, dtype=torch.long)
        for threshold in self._between:
            place += levels > threshold
        codes = self._order.gather(0, place.flatten(0, -2)).view(place.shape)
        patterns = sign_patterns(len(self._scales), levels.device)
        return torch.stack([column[codes] for column in patterns.T])


def combine(signs: Tensor, scales: Tensor) -> Tensor:
    """Levels of signs.

    Args:
        signs: (P, ..., rows).
        scales: (P, rows).

    Returns:
        (..., rows).
    """
    total = signs[0] * scales[0]
    for plane, scale in zip(signs[1:], scales[1:], strict=True):
        total.addcmul_(plane, scale.expand_as(plane))
    return total


def subtract_outer(values: Tensor, column: Tensor, row: Tensor) -> None:
    """Take outer products away from matrices, in place.

    Args:
        values: (count, n, rows).
        column: (count, n).
        row: (count, rows).
    """
    if len(values) == 1:
        values[0].addr_(column[0], row[0], alpha=-1)
    else:
        values.baddbmm_(column[:, :, None], row[:, None], alpha=-1)


def error_feedback(weight: Tensor, factor: Tensor, scales: Tensor) -> Tensor:
    """Column-wise rounding with the error of each column carried to the next ones (GPTQ, LDLQ).

    With H = R R^T the error is ``||E R||^2``; each column is rounded so that its own column of
    E R is as small as it can be after the ones before it. Blocks of columns that have nothing to
    do with each other are taken side by side.

    Args:
        weight: (blocks, columns, rows), transposed: what one step reads and writes lies together.
        factor: upper R with ``R R^T = H`` of each block, (blocks, columns, columns), see
            ``hessian.error_factor``.
        scales: (P, rows).

    Returns:
        (blocks, columns, rows) of levels.
    """
    rounder = Rounder(scales)
    levels, wanted = torch.empty_like(weight), weight.clone()
    # Divided by the diagonal once, so that what is carried adds to the weights as it is.
    factor = factor / factor.diagonal(dim1=1, dim2=2)[:, None, :]
    for start in range(0, weight.shape[1], _PANEL):
        stop = min(start + _PANEL, weight.shape[1])
        errors = torch.empty_like(weight[:, start:stop])
        for j in range(start, stop):
            level = rounder.nearest(wanted[:, j])
            levels[:, j] = level
            errors[:, j - start] = level - weight[:, j]
            subtract_outer(
                wanted[:, j + 1 : stop], factor[:, j, j + 1 : stop], errors[:, j - start]
            )
        wanted[:, stop:].baddbmm_(factor[:, start:stop, stop:].mT, errors, alpha=-1)
    return levels
