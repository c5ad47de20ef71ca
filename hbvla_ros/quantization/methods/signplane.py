# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``signplane``: sign planes on a balanced block Hadamard domain (spec section 5).

The weight is written as ``W = W' T`` with the column transform ``T = Hadamard diag(b)``; the signs
are chosen for W' under ``H' = T^-T H T^-1`` by column-wise error feedback, then rounds of
least-squares row scales and coordinate descent on the signs, with two least-squares refits of b
in between. Without a Hessian the inputs are taken as white.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.hadamard import block_hadamard
from hbvla_ros.packed.layer import QuantizedLayer, store_scale
from hbvla_ros.quantization import signs as solver
from hbvla_ros.quantization.hessian import damped, feedback_factor
from hbvla_ros.quantization.options import MethodOptions

_SMALLEST_SCALE = 1e-3
_ROUNDS_AFTER_REFIT = 2


def quantize(weight: Tensor, hessian: Tensor | None, options: MethodOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Inputs that never moved during calibration (zero on the diagonal of the Hessian) say nothing
    about their weights, which are taken as zero.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None.
        options: all fields are used.
    """
    columns = weight.shape[1]
    if hessian is not None:
        weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
    metric = damped(torch.eye(columns) if hessian is None else hessian, options.damping)
    scale = _initial_column_scale(weight, options)
    inner, inner_metric = _transform(weight, metric, scale, options.hadamard)
    row_scales = solver.initial_scales(inner, options.planes)
    levels = solver.error_feedback(inner, feedback_factor(inner_metric), row_scales)
    levels, row_scales = _alternate(inner, inner_metric, levels, row_scales, options.rounds)
    for _ in range(options.column_refits if scale is not None else 0):
        scale = _refit_column_scale(weight, metric, levels, options.hadamard)
        inner, inner_metric = _transform(weight, metric, scale, options.hadamard)
        levels, row_scales = _alternate(
            inner, inner_metric, levels, row_scales, _ROUNDS_AFTER_REFIT
        )
    signs = solver.codes_to_signs(solver.nearest_codes(levels, row_scales), options.planes)
    return QuantizedLayer(
        columns, pack_signs(signs), store_scale(row_scales), options.hadamard, scale
    )


def _initial_column_scale(weight: Tensor, options: MethodOptions) -> Tensor | None:
    """Column scale b as stored, or None when neither balance nor random signs are asked for.

    Columns are brought to equal norm, which a row scale shared by all of them needs; a power of
    the inputs' energy on top of it made no layer of the spec's recipe better.
    """
    if not options.balance and not options.random_signs:
        return None
    scale = torch.ones(weight.shape[1])
    if options.balance:
        norms = weight.norm(dim=0)
        mean = float(norms.mean()) or 1.0
        scale = (norms / mean).clamp_min(_SMALLEST_SCALE)
    if options.random_signs:
        generator = torch.Generator().manual_seed(options.seed)
        scale = scale * (torch.randint(0, 2, scale.shape, generator=generator) * 2 - 1)
    return store_scale(scale)


def _refit_column_scale(weight: Tensor, metric: Tensor, levels: Tensor, hadamard: int) -> Tensor:
    """Column scale that minimises the error under the Hessian for fixed signs and row scales.

    With A = levels Hadamard the error is a quadratic in b with the matrix (A^T A) * H, elementwise.
    """
    basis = block_hadamard(levels, hadamard)
    normal = ((basis.T @ basis) * metric).double()
    right = (basis * (weight @ metric)).sum(dim=0).double()
    ridge = (1e-9 * normal.diagonal().mean()).clamp_min(1e-30)
    normal += ridge * torch.eye(len(normal), dtype=torch.float64)
    scale = torch.linalg.solve(normal, right).float()
    floor = _SMALLEST_SCALE * float(scale.abs().mean()) or _SMALLEST_SCALE
    return store_scale(torch.where(scale < 0, -1.0, 1.0) * scale.abs().clamp_min(floor))


def _transform(
    weight: Tensor, metric: Tensor, scale: Tensor | None, hadamard: int
) -> tuple[Tensor, Tensor]:
    """Weight and Hessian as seen behind the column transform."""
    if scale is not None:
        exact = scale.float()
        weight = weight / exact
        metric = metric * exact[:, None] * exact[None, :]
    metric = block_hadamard(block_hadamard(metric, hadamard).T, hadamard)
    return block_hadamard(weight, hadamard), (metric + metric.T) / 2


def _alternate(
    weight: Tensor, metric: Tensor, levels: Tensor, scales: Tensor, rounds: int
) -> tuple[Tensor, Tensor]:
    """Rounds of least-squares row scales and one sweep over the signs; returns levels, scales."""
    for _ in range(rounds):
        signs = solver.codes_to_signs(solver.nearest_codes(levels, scales), len(scales))
        scales = solver.least_squares_scales(weight, signs, metric)
        levels = (signs * scales[..., None]).sum(dim=0)
        levels = solver.coordinate_descent(weight, levels, metric, scales)
    return levels, scales
