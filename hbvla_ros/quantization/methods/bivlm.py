# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``bivlm``: sets of weights by Gaussian quantiles. A reconstruction: no code was published.

Bi-VLM (arXiv 2509.18763) as its abstract and the papers that compare with it describe it (spec
3.4); results stand for the idea, not for its authors' numbers. The weights of a layer are taken as
Gaussian. Its quantiles cut off the outliers, a share ``rho`` of unstructured positions, and halve
the inliers in two sets of equal mass. Each row has one sign and one scale for each inlier set
and two residual sign planes for its outliers, all around a mean of its own; signs and scales are
optimised by turns. No calibration is used and no error fed back.

The published ratios contradict each other (spec A-18): Bi-VLM itself reports about 1 % of outliers
in the language model and 5 % in the vision towers, HBVLA quotes the reverse. The method sees one
matrix at a time, so ``rho`` is one number: the language model's 0.01 by default, 0.05 in the
preset 'vision'.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.binary.code import PlaneCode
from hbvla_ros.quantization.binary.parts import PartBuilder
from hbvla_ros.quantization.options import MethodOptions

# Planes: S, then the second one, then O = +1 for outliers. With D = -1 and +1 in the inner and the
# outer inlier set the second plane is S D there; in the outliers it is the residual's sign.
_PRODUCTS = (0, 1, 5, 2, 6)
_TILE = 256


@dataclass(frozen=True)
class BivlmOptions(MethodOptions):
    """Options of ``bivlm``.

    Attributes:
        rho: share of outliers under the Gaussian, 0 to below 1; see the module.
        rounds: of signs and scales by turns.
    """

    rho: float = 0.01
    rounds: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.rho < 1:
            raise ValueError(f'rho={self.rho}: use a share from 0 to below 1')
        if self.rounds < 1:
            raise ValueError(f'rounds={self.rounds}: use 1 or more')


PRESETS = {'default': BivlmOptions(), 'vision': BivlmOptions(rho=0.05)}


def quantize(weight: Tensor, hessian: Tensor | None, options: BivlmOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Args:
        weight: float32 (rows, columns).
        hessian: not used.
        options: ``rho`` and ``rounds`` are used.
    """
    columns = weight.shape[1]
    sets = gaussian_sets(weight, options.rho)
    codes = [
        _code_rows(rows, members, options.rounds)
        for rows, members in zip(weight.split(_TILE), sets.split(_TILE), strict=True)
    ]
    whole = PlaneCode(
        torch.cat([code.planes for code in codes], dim=1),
        torch.cat([code.coefficients for code in codes], dim=1),
        _PRODUCTS,
    )
    builder = PartBuilder(columns, _PRODUCTS)
    builder.add([whole], torch.arange(columns, device=weight.device))
    part = builder.build()
    assert part is not None, 'a layer has columns'
    share = float((sets == 2).float().mean())
    return GroupedLayer(columns, {'base': part}, 1 + share)


def gaussian_sets(weight: Tensor, rho: float) -> Tensor:
    """The set of each weight: 0 inner and 1 outer inliers, 2 outliers.

    Args:
        weight: float32 (rows, columns).
        rho: share of outliers, were the weights Gaussian with their mean and standard deviation.

    Returns:
        int8 (rows, columns).
    """
    normal = NormalDist()
    deviation = (weight - weight.mean()).abs()
    spread = deviation.square().mean().sqrt()
    middle = spread * normal.inv_cdf(0.5 + (1 - rho) / 4)
    sets = (deviation >= middle).to(torch.int8)
    if rho > 0:
        sets += deviation >= spread * normal.inv_cdf(1 - rho / 2)
    return sets


def _code_rows(weight: Tensor, sets: Tensor, rounds: int) -> PlaneCode:
    """Signs and scales of some rows, by turns.

    ``scales`` are (rows, 5): mean, inner and outer inlier scale, first and second outlier scale.
    """
    scales = _initial_scales(weight, sets)
    for _ in range(rounds):
        first, second = _nearest_signs(weight, sets, scales)
        scales = _least_squares(weight, sets, first, second)
    outlier = sets == 2
    planes = torch.stack(
        (first, torch.where(outlier, second, first * (2 * sets - 1)), torch.where(outlier, 1, -1))
    )
    mean, inner, outer, coarse, fine = scales.float().T
    common, difference = (outer + inner) / 2, (outer - inner) / 2
    coefficients = torch.stack(
        (
            mean,
            (coarse + common) / 2,
            (coarse - common) / 2,
            (fine + difference) / 2,
            (fine - difference) / 2,
        )
    )
    return PlaneCode(planes.to(torch.int8), coefficients, _PRODUCTS)


def _initial_scales(weight: Tensor, sets: Tensor) -> Tensor:
    """Row mean, mean-abs scale of each set, and of what the outliers then lack."""
    mean = weight.mean(dim=1)
    distance = (weight - mean[:, None]).abs()
    inner, outer, coarse = (_mean_of(distance, sets == number) for number in range(3))
    fine = _mean_of((distance - coarse[:, None]).abs(), sets == 2)
    return torch.stack((mean, inner, outer, coarse, fine), dim=1).double()


def _nearest_signs(weight: Tensor, sets: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Signs of the first and the second plane, int8 (rows, n); the second counts in outliers only.

    Scales may have turned negative, so signs are taken of products.
    """
    mean, inner, outer, coarse, fine = (scale[:, None] for scale in scales.float().T)
    centred = weight - mean
    inlier_scale = torch.where(sets == 1, outer, inner)
    level, best = torch.full_like(weight, torch.inf), torch.zeros_like(sets)
    for pattern, (one, two) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        distance = (centred - one * coarse - two * fine).abs()
        closer = distance < level
        best[closer] = pattern
        level = torch.where(closer, distance, level)
    first = torch.where(sets == 2, best < 2, centred * inlier_scale >= 0)
    return _signs(first), _signs(best % 2 == 0)


def _least_squares(weight: Tensor, sets: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Mean and scales of least squared error for fixed signs, float64 (rows, 5); empty sets: 0."""
    outlier = sets == 2
    design = torch.stack(
        [torch.ones_like(weight)]
        + [first * (sets == number) for number in range(3)]
        + [second * outlier],
        dim=1,
    ).to(weight)
    gram = (design @ design.transpose(1, 2)).double()
    right = (design @ weight[..., None]).double()
    # Far below rounding to 16 bits; empty sets and planes that agree would make it singular.
    gram.diagonal(dim1=1, dim2=2).add_(1e-9 * weight.shape[1])
    return torch.linalg.solve(gram, right)[..., 0]


def _mean_of(values: Tensor, mask: Tensor) -> Tensor:
    """(rows,): mean of the chosen values of each row, 0 where there are none."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)


def _signs(positive: Tensor) -> Tensor:
    return positive.to(torch.int8) * 2 - 1
