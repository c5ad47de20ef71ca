# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Dense and sparse group of each row with levels of their own (spec 1.6, 3.2, 3.3).

A threshold on the magnitude of the coefficients cuts each row in two groups, and each group gets
two levels, ``mean +- scale``. The threshold is the one of a grid of quantiles with the least
squared error. All thresholds of a row together cost one sort: a dense group is an interval of the
sorted row, so sums over it are differences of running sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hbvla_ros.quantization.binary.code import PlaneCode

Scale = Literal['rms', 'mean_abs']
Partition = Literal['row', 'global']

# Planes are S and S M, with M = +1 in the sparse group: the products are mean, S, S M and M.
SHARED_MEAN_PRODUCTS = (0, 1, 2)
OWN_MEAN_PRODUCTS = (0, 1, 2, 3)
_LOWEST, _HIGHEST = 0.10, 0.90
_THRESHOLDS = {'row': 41, 'global': 81}


@dataclass(frozen=True)
class GroupRule:
    """How groups are found and coded.

    Attributes:
        shared_mean: one mean of the whole row, not one for each group.
        scale: 'rms' as in the official code, or 'mean_abs', which has the least squared error.
        partition: a threshold for each row out of 41 quantiles of the row, or one for all rows
            out of the 81 quantiles of the matrix.
        centred: the threshold is on the distance from the row's mean, not from zero.
    """

    shared_mean: bool = True
    scale: Scale = 'rms'
    partition: Partition = 'row'
    centred: bool = False

    @property
    def products(self) -> tuple[int, ...]:
        """Products of planes that the codes of this rule use."""
        return group_products(self.shared_mean)


def group_products(shared_mean: bool) -> tuple[int, ...]:
    """Products of the planes S and S M that two groups need."""
    return SHARED_MEAN_PRODUCTS if shared_mean else OWN_MEAN_PRODUCTS


def search_groups(values: Tensor, rule: GroupRule, row_bands: int = 1) -> PlaneCode:
    """Find the groups of each row and code them.

    Args:
        values: float32 (rows, n), n >= 1: the coefficients of one band of one block.
        rule: how.
        row_bands: 2 where the rows are low and high Haar coefficients by turns; each band then
            gets its own threshold where rows share one.
    """
    distance = _distance(values, rule.centred)
    threshold = best_threshold(values, rule, row_bands)
    return code_groups(values, distance >= threshold, rule.shared_mean, rule.scale)


def best_threshold(values: Tensor, rule: GroupRule, row_bands: int = 1) -> Tensor:
    """The threshold of each row with the least squared error, float32 (rows, 1).

    Columns at or above it are sparse. The first of equals wins. Arguments as of
    :func:`search_groups`.
    """
    distance = _distance(values, rule.centred)
    if rule.partition == 'row':
        grid = quantiles(distance, _THRESHOLDS['row'])
        best = threshold_errors(values, grid, rule).argmin(dim=1, keepdim=True)
        return grid.gather(1, best)
    result = torch.empty_like(values[:, :1])
    for band in range(min(row_bands, len(values))):
        rows = slice(band, None, row_bands)
        grid = quantiles(distance[rows].reshape(1, -1), _THRESHOLDS['global'])
        result[rows] = best_shared_threshold(values[rows], grid, rule)
    return result


def best_shared_threshold(values: Tensor, grid: Tensor, rule: GroupRule) -> Tensor:
    """The one threshold of the grid (1, T) with the least error over all rows, (1, 1)."""
    errors = threshold_errors(values, grid.expand(len(values), -1), rule).sum(dim=0, keepdim=True)
    return grid.gather(1, errors.argmin(dim=1, keepdim=True))


def quantiles(values: Tensor, count: int) -> Tensor:
    """Quantiles 10 % to 90 % of each row in equal steps, linear between neighbours.

    Args:
        values: float32 (rows, n).
        count: number of quantiles.

    Returns:
        float32 (rows, count).
    """
    ordered = values.contiguous().sort(dim=1).values
    share = torch.linspace(_LOWEST, _HIGHEST, count, device=values.device)
    place = share * (values.shape[1] - 1)
    low = place.floor().long()
    high = place.ceil().long()
    return torch.lerp(ordered[:, low], ordered[:, high], place - low)


def threshold_errors(values: Tensor, thresholds: Tensor, rule: GroupRule) -> Tensor:
    """Squared error of each row under each threshold, computed in float64.

    Args:
        values: float32 (rows, n).
        thresholds: float32 (rows, T), none negative.
        rule: ``partition`` is not used.

    Returns:
        float64 (rows, T).
    """
    if rule.centred:
        values = values - values.mean(dim=1, keepdim=True)
    ordered = values.contiguous().sort(dim=1).values
    sums = _RunningSums(ordered)
    thresholds = thresholds.contiguous()
    low = torch.searchsorted(ordered, -thresholds, right=True)
    high = torch.searchsorted(ordered, thresholds)
    # A threshold of zero makes no dense group; its two ends would cross.
    low = torch.minimum(low, high)
    dense = _Group(high - low, *(sums.between(order, low, high) for order in (1, 2)))
    first, last = torch.zeros_like(low), torch.full_like(low, values.shape[1])
    total = _Group(last, *(sums.between(order, first, last) for order in (1, 2)))
    sparse = _Group(
        total.count - dense.count, total.first - dense.first, total.second - dense.second
    )
    dense_mean, sparse_mean = (
        (total.mean(), total.mean()) if rule.shared_mean else (dense.mean(), sparse.mean())
    )
    dense_deviation = sums.absolute_deviation(dense_mean, low, high)
    sparse_deviation = sums.absolute_deviation(sparse_mean, first, last) - sums.absolute_deviation(
        sparse_mean, low, high
    )
    return dense.error(dense_mean, dense_deviation, rule.scale) + sparse.error(
        sparse_mean, sparse_deviation, rule.scale
    )


def code_groups(values: Tensor, sparse: Tensor, shared_mean: bool, scale: Scale) -> PlaneCode:
    """Code a matrix whose groups are known.

    Args:
        values: float32 (rows, n).
        sparse: bool (rows, n), the sparse group.
        shared_mean: one mean of the whole row, not one for each group.
        scale: how the distance of the levels from the mean is taken.

    Returns:
        Planes S and S M; an empty group has mean and scale 0.
    """
    masks = (~sparse, sparse)
    if shared_mean:
        mean = values.mean(dim=1)
        means = [mean, mean]
    else:
        means = [_masked_mean(values, mask) for mask in masks]
    deviation = values - torch.where(sparse, means[1][:, None], means[0][:, None])
    if scale == 'rms':
        dense_scale, sparse_scale = (_masked_mean(deviation.square(), m).sqrt() for m in masks)
    else:
        dense_scale, sparse_scale = (_masked_mean(deviation.abs(), m) for m in masks)
    signs = (deviation >= 0).to(torch.int8) * 2 - 1
    planes = torch.stack((signs, torch.where(sparse, signs, -signs)))
    coefficients = [
        (means[0] + means[1]) / 2,
        (sparse_scale + dense_scale) / 2,
        (sparse_scale - dense_scale) / 2,
        (means[1] - means[0]) / 2,
    ]
    products = group_products(shared_mean)
    return PlaneCode(planes, torch.stack(coefficients[: len(products)]), products)


@dataclass(frozen=True)
class _Group:
    """Number, sum and sum of squares of the members of one group, each (rows, T)."""

    count: Tensor
    first: Tensor
    second: Tensor

    def mean(self) -> Tensor:
        return self.first / self.count.clamp_min(1)

    def error(self, mean: Tensor, deviation: Tensor, scale: Scale) -> Tensor:
        """Squared error of levels mean +- scale; deviation is the sum of |value - mean|."""
        spread = (self.second - 2 * mean * self.first + self.count * mean.square()).clamp_min(0)
        count = self.count.clamp_min(1)
        level = (spread / count).sqrt() if scale == 'rms' else deviation / count
        return spread - 2 * level * deviation + self.count * level.square()


class _RunningSums:
    """Sums over intervals of sorted rows."""

    def __init__(self, ordered: Tensor) -> None:
        self._ordered = ordered.double()
        powers = (self._ordered, self._ordered.square())
        self._sums = [torch.nn.functional.pad(p.cumsum(dim=1), (1, 0)) for p in powers]

    def between(self, order: int, low: Tensor, high: Tensor) -> Tensor:
        """Sum of the values to a power (1 or 2) from place ``low`` up to before ``high``."""
        sums = self._sums[order - 1]
        return sums.gather(1, high) - sums.gather(1, low)

    def absolute_deviation(self, mean: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Sum of the distances from ``mean`` over an interval."""
        middle = torch.searchsorted(self._ordered, mean.contiguous()).clamp(low, high)
        above = self.between(1, middle, high) - (high - middle) * mean
        below = (middle - low) * mean - self.between(1, low, middle)
        return above + below


def _distance(values: Tensor, centred: bool) -> Tensor:
    return (values - values.mean(dim=1, keepdim=True)).abs() if centred else values.abs()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(rows,): mean of the chosen values of each row, 0 where there are none."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
