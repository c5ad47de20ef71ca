# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Signs and row scales of a weight matrix under a Hessian (spec section 5).

All functions work on float32 matrices in the domain in which the signs are stored.
``levels`` are what a row's weights can be: every sum of its row scales with signs.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_BLOCK = 128


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
        residual = residual - scale[:, None] * torch.where(residual >= 0, 1.0, -1.0)
        scales.append(scale)
    return torch.stack(scales)


def nearest_codes(values: Tensor, scales: Tensor) -> Tensor:
    """Index of the sign pattern whose level is nearest to each value.

    Args:
        values: (rows, n).
        scales: (P, rows).

    Returns:
        int64 (rows, n), index into ``sign_patterns(P)``; ties go to the first, +1.
    """
    levels = sign_patterns(len(scales)).to(values) @ scales
    best = torch.zeros_like(values, dtype=torch.long)
    distance = (values - levels[0][:, None]).abs()
    for code in range(1, len(levels)):
        other = (values - levels[code][:, None]).abs()
        closer = other < distance
        best[closer] = code
        distance = torch.where(closer, other, distance)
    return best


def codes_to_signs(codes: Tensor, planes: int) -> Tensor:
    """(rows, n) codes to (P, rows, n) signs of -1.0 and +1.0."""
    return sign_patterns(planes)[codes].permute(2, 0, 1).contiguous()


def round_to_levels(values: Tensor, scales: Tensor) -> Tensor:
    """Nearest level of each value, (rows, n)."""
    if len(scales) == 1:
        return torch.where(values * scales[0][:, None] >= 0, 1.0, -1.0) * scales[0][:, None]
    signs = codes_to_signs(nearest_codes(values, scales), len(scales))
    return (signs * scales[..., None]).sum(dim=0)


def error_feedback(weight: Tensor, factor: Tensor, scales: Tensor) -> Tensor:
    """Column-wise rounding with the error of each column carried to the next ones (GPTQ, LDLQ).

    Args:
        weight: (rows, columns).
        factor: upper Cholesky factor U of the inverse Hessian, (columns, columns).
        scales: (P, rows).

    Returns:
        (rows, columns) of levels.
    """
    rest, result = weight.clone(), torch.empty_like(weight)
    columns = weight.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = torch.empty(len(weight), stop - start)
        for j in range(start, stop):
            result[:, j] = round_to_levels(rest[:, j : j + 1], scales)[:, 0]
            errors[:, j - start] = (rest[:, j] - result[:, j]) / factor[j, j]
            rest[:, j:stop] -= torch.outer(errors[:, j - start], factor[j, j:stop])
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return result


def coordinate_descent(weight: Tensor, levels: Tensor, hessian: Tensor, scales: Tensor) -> Tensor:
    """One sweep that sets every column to its best levels with all others held.

    Each step lowers ``tr(E H E^T)`` or leaves it as it is.

    Args:
        weight: (rows, columns).
        levels: (rows, columns), the present levels.
        hessian: (columns, columns).
        scales: (P, rows).

    Returns:
        (rows, columns) of levels.
    """
    levels = levels.clone()
    gradient = (weight - levels) @ hessian
    columns = weight.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        changes = torch.zeros(len(weight), stop - start)
        for j in range(start, stop):
            target = levels[:, j] + gradient[:, j] / hessian[j, j]
            best = round_to_levels(target[:, None], scales)[:, 0]
            changes[:, j - start] = best - levels[:, j]
            levels[:, j] = best
            gradient[:, j:stop] -= torch.outer(changes[:, j - start], hessian[j, j:stop])
        gradient[:, stop:] -= changes @ hessian[start:stop, stop:]
    return levels


def least_squares_scales(weight: Tensor, signs: Tensor, hessian: Tensor) -> Tensor:
    """Row scales that minimise the error under the Hessian for fixed signs.

    Args:
        weight: (rows, columns).
        signs: (P, rows, columns).
        hessian: (columns, columns).

    Returns:
        (P, rows).
    """
    planes = len(signs)
    projected = signs @ hessian
    gram = torch.einsum('prm,qrm->rpq', projected, signs).double()
    right = torch.einsum('prm,rm->rp', projected, weight).double()
    # Two equal planes make the system singular; the ridge is far below float32 rounding.
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    gram = gram + ridge[:, None, None] * torch.eye(planes, dtype=torch.float64)
    return torch.linalg.solve(gram, right[..., None])[..., 0].T.float()
