# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Rounding of weights to sums of row scales with signs (spec section 5).

All functions work on float32 matrices in the domain in which the signs are stored.
``levels`` are what a row's weights can be: every sum of its row scales with signs.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_PANEL = 64


def sign_patterns(planes: int) -> Tensor:
    """(2^planes, planes): every combination of signs."""
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=planes)))


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
        levels = sign_patterns(len(scales)).to(scales) @ scales
        self._levels, self._order = levels.sort(dim=0)
        self._between = (self._levels[1:] + self._levels[:-1]) / 2

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest level of each value, (rows,) to (rows,)."""
        if len(self._scales) == 1:
            return torch.copysign(self._single, values)
        place = (values > self._between).sum(dim=0, keepdim=True)
        return self._levels.gather(0, place)[0]

    def signs(self, levels: Tensor) -> Tensor:
        """The signs that make levels.

        Args:
            levels: (n, rows), each one of its row's levels or near to it.

        Returns:
            (P, n, rows) of -1.0 and +1.0.
        """
        if len(self._scales) == 1:
            return torch.copysign(torch.ones_like(levels), levels * self._scales[0].sign())[None]
        place = torch.zeros_like(levels, dtype=torch.long)
        for threshold in self._between:
            place += levels > threshold
        codes = self._order.gather(0, place)
        patterns = sign_patterns(len(self._scales)).to(levels)
        return torch.stack([column[codes] for column in patterns.T])


def combine(signs: Tensor, scales: Tensor) -> Tensor:
    """Levels of signs.

    Args:
        signs: (P, n, rows).
        scales: (P, rows).

    Returns:
        (n, rows).
    """
    total = signs[0] * scales[0]
    for plane, scale in zip(signs[1:], scales[1:], strict=True):
        total.addcmul_(plane, scale.expand_as(plane))
    return total


def error_feedback(weight: Tensor, factor: Tensor, scales: Tensor) -> Tensor:
    """Column-wise rounding with the error of each column carried to the next ones (GPTQ, LDLQ).

    With H = R R^T the error is ``||E R||^2``; each column is rounded so that its own column of
    E R is as small as it can be after the ones before it.

    Args:
        weight: (columns, rows), transposed: what one step reads and writes lies together.
        factor: upper R with ``R R^T = H``, (columns, columns), see ``hessian.error_factor``.
        scales: (P, rows).

    Returns:
        (columns, rows) of levels.
    """
    rounder = Rounder(scales)
    levels = torch.empty_like(weight)
    carried = torch.zeros_like(weight)
    diagonal = factor.diagonal().tolist()
    for start in range(0, len(weight), _PANEL):
        stop = min(start + _PANEL, len(weight))
        within = factor[start:stop, start:stop]
        errors = torch.empty_like(weight[start:stop])
        panel = carried[start:stop]
        for j in range(stop - start):
            column = weight[start + j]
            wanted = torch.add(column, panel[j], alpha=1 / diagonal[start + j])
            level = rounder.nearest(wanted)
            levels[start + j] = level
            torch.sub(column, level, out=errors[j])
            panel[j + 1 :].addr_(within[j, j + 1 :], errors[j])
        carried[stop:].addmm_(factor[start:stop, stop:].T, errors)
    return levels
