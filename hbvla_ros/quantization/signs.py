# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Signs and row scales of a weight matrix under a Hessian (spec section 5).

All functions work on float32 matrices in the domain in which the signs are stored.
``levels`` are what a row's weights can be: every sum of its row scales with signs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK = 32


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


def level_signs(levels: Tensor, scales: Tensor) -> Tensor:
    """The signs that make levels, (P, rows, n): of one plane, their own signs."""
    if len(scales) == 1:
        return torch.where(levels * scales[0][:, None] >= 0, 1.0, -1.0)[None]
    return codes_to_signs(nearest_codes(levels, scales), len(scales))


def codes_to_signs(codes: Tensor, planes: int) -> Tensor:
    """(rows, n) codes to (P, rows, n) signs of -1.0 and +1.0."""
    return sign_patterns(planes)[codes].permute(2, 0, 1).contiguous()


def round_to_levels(values: Tensor, scales: Tensor) -> Tensor:
    """Nearest level of each value, (rows, n)."""
    if len(scales) == 1:
        scale = scales[0][:, None]
        return torch.where(values * scale >= 0, scale, -scale)
    return (level_signs(values, scales) * scales[..., None]).sum(dim=0)


def error_feedback(weight: Tensor, factor: Tensor, scales: Tensor) -> Tensor:
    """Column-wise rounding with the error of each column carried to the next ones (GPTQ, LDLQ).

    Args:
        weight: (rows, columns).
        factor: upper Cholesky factor U of the inverse Hessian, (columns, columns).
        scales: (P, rows).

    Returns:
        (rows, columns) of levels.
    """
    # Transposed, so that what one step reads and writes lies together.
    rest = weight.T.clone(memory_format=torch.contiguous_format)
    result = torch.empty_like(rest)
    columns = len(rest)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = torch.empty(stop - start, len(weight))
        for j in range(start, stop):
            result[j] = round_to_levels(rest[j][:, None], scales)[:, 0]
            errors[j - start] = (rest[j] - result[j]) / factor[j, j]
            rest[j:stop].addr_(factor[j, j:stop], errors[j - start], alpha=-1)
        rest[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return result.T.contiguous()


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
    gradient = hessian @ (weight - levels).T
    levels = levels.T.clone(memory_format=torch.contiguous_format)
    columns = len(levels)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        changes = torch.empty(stop - start, len(weight))
        for j in range(start, stop):
            target = levels[j] + gradient[j] / hessian[j, j]
            best = round_to_levels(target[:, None], scales)[:, 0]
            changes[j - start] = best - levels[j]
            levels[j] = best
            gradient[j:stop].addr_(hessian[j, j:stop], changes[j - start], alpha=-1)
        gradient[stop:].addmm_(hessian[start:stop, stop:].T, changes, alpha=-1)
    return levels.T.contiguous()


def least_squares_scales(
    weight: Tensor, signs: Tensor, hessian: Tensor | Sequence[Tensor]
) -> Tensor:
    """Row scales that minimise the error under the Hessian for fixed signs.

    Args:
        weight: (rows, columns).
        signs: (P, rows, columns).
        hessian: (columns, columns), or the blocks of a block-diagonal one in the order of the
            columns.

    Returns:
        (P, rows).
    """
    planes, start = len(signs), 0
    gram = torch.zeros(len(weight), planes, planes, dtype=torch.float64)
    right = torch.zeros(len(weight), planes, dtype=torch.float64)
    for block in (hessian,) if isinstance(hessian, Tensor) else hessian:
        part = slice(start, start + len(block))
        projected = signs[..., part] @ block
        gram += torch.einsum('prm,qrm->rpq', projected, signs[..., part])
        right += torch.einsum('prm,rm->rp', projected, weight[:, part])
        start = part.stop
    # Two equal planes make the system singular; the ridge is far below float32 rounding.
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    gram = gram + ridge[:, None, None] * torch.eye(planes, dtype=torch.float64)
    return torch.linalg.solve(gram, right[..., None])[..., 0].T.float()
