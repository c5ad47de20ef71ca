# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Refits the codes of one block of columns under its Hessian.

Grouping looks at one row of coefficients at a time and counts all errors alike. Here the signs,
groups, means and scales of a block are improved by turns under what the block's errors really
cost once later columns have made them good, ``tr(E M E^T)`` with ``M = (U_bb^T U_bb)^-1``.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hbvla_ros.quantization.binary.code import PlaneCode
from hbvla_ros.quantization.binary.haar import haar_columns, join_bands, split_bands
from hbvla_ros.quantization.signs import sign_patterns


def block_metric(factor: Tensor) -> Tensor:
    """``(U_bb^T U_bb)^-1`` of the block's slice of U, float64 (n, n)."""
    return torch.cholesky_inverse(factor.double(), upper=True)


def refine_codes(
    target: Tensor, metric: Tensor, codes: list[PlaneCode], rounds: int, dtype: torch.dtype | None
) -> list[PlaneCode]:
    """Refit coefficients by least squares and planes by coordinate descent, by turns.

    Args:
        target: float32 (rows, n), Haar coefficients that the codes stand for.
        metric: float64 (n, n), cost of errors before the Haar transform.
        codes: one for each band.
        rounds: of one refit of the coefficients and one sweep over the planes.
        dtype: 16-bit dtype that coefficients are rounded to, or None.

    Returns:
        One code for each band; the same products.
    """
    cost = haar_columns(haar_columns(metric.float()).T.contiguous())
    cost = (cost + cost.T) / 2
    for _ in range(rounds):
        codes = [code.rounded(dtype) for code in refit_coefficients(target, cost, codes)]
        codes = sweep_planes(target, cost, codes)
    return [code.rounded(dtype) for code in refit_coefficients(target, cost, codes)]


def refit_coefficients(target: Tensor, cost: Tensor, codes: list[PlaneCode]) -> list[PlaneCode]:
    """Coefficients of all bands together that minimise the cost for fixed planes.

    Args:
        target: float32 (rows, n).
        cost: float32 (n, n).
        codes: one for each band.
    """
    count = len(codes[0].products)
    design = torch.zeros(len(target), len(codes) * count, target.shape[1], device=target.device)
    for band, code in enumerate(codes):
        design[:, band * count : (band + 1) * count, band :: len(codes)] = _terms(code)
    weighted = design @ cost
    gram = (weighted @ design.transpose(1, 2)).double()
    right = (weighted @ target[..., None]).double()
    # Two equal planes make the system singular; the ridge is far below the rounding to 16 bits.
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += 1e-7 * diagonal.mean(dim=1, keepdim=True) + torch.finfo(torch.float32).tiny
    solved = torch.linalg.solve(gram, right)[..., 0].float().T
    return [
        dataclasses.replace(code, coefficients=part.contiguous())
        for code, part in zip(codes, solved.split(count), strict=True)
    ]


def sweep_planes(target: Tensor, cost: Tensor, codes: list[PlaneCode]) -> list[PlaneCode]:
    """Set every column in turn to its best levels with all others held.

    Args:
        target: float32 (rows, n).
        cost: float32 (n, n).
        codes: one for each band.
    """
    bands = len(codes)
    tables = [_level_table(code) for code in codes]
    levels = join_bands([code.levels() for code in codes])
    planes = join_bands([code.planes for code in codes])
    # Transposed, so that what one step reads and writes lies together.
    gradient = cost @ (target - levels).T
    levels = levels.T.contiguous()
    patterns = sign_patterns(len(planes)).to(planes)
    for column in range(len(cost)):
        table = tables[column % bands]
        wanted = levels[column] + gradient[column] / cost[column, column]
        best = (table - wanted).abs().argmin(dim=0)
        change = table.gather(0, best[None])[0] - levels[column]
        planes[:, :, column] = patterns[best].T
        levels[column] += change
        gradient[column + 1 :].addr_(cost[column, column + 1 :], change, alpha=-1)
    return [
        dataclasses.replace(code, planes=part.contiguous())
        for code, part in zip(codes, split_bands(planes, bands), strict=True)
    ]


def _terms(code: PlaneCode) -> Tensor:
    """float32 (rows, C, n): what each coefficient is multiplied by."""
    signs = code.planes.float()
    terms = []
    for product in code.products:
        term = torch.ones_like(signs[0])
        for plane in range(len(signs)):
            if product >> plane & 1:
                term = term * signs[plane]
        terms.append(term)
    return torch.stack(terms, dim=1)


def _level_table(code: PlaneCode) -> Tensor:
    """float32 (2^P, rows): the level of every combination of signs, as ``sign_patterns`` goes."""
    patterns = sign_patterns(len(code.planes)).to(code.coefficients)
    terms = []
    for product in code.products:
        chosen = [plane for plane in range(len(code.planes)) if product >> plane & 1]
        terms.append(patterns[:, chosen].prod(dim=1))
    return torch.stack(terms, dim=1) @ code.coefficients
