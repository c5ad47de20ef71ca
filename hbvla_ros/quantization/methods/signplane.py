# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``signplane``: sign planes on a balanced block Hadamard domain (spec section 5).

The weight is written as ``W = W' T`` with the column transform ``T = Hadamard diag(b)``; the signs
are chosen for W' under ``H' = T^-T H T^-1`` by column-wise error feedback, then rounds of
least-squares row scales and coordinate descent on the signs, with two least-squares refits of b
in between. Without a Hessian the inputs are taken as white: H is the identity, so H' is
block-diagonal, one block for each Hadamard block, and every step runs block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.hadamard import block_hadamard, hadamard_blocks, walsh_hadamard
from hbvla_ros.packed.layer import QuantizedLayer, store_scale
from hbvla_ros.quantization import signs as solver
from hbvla_ros.quantization.hessian import damped, feedback_factor
from hbvla_ros.quantization.options import MethodOptions

_SMALLEST_SCALE = 1e-3
_ROUNDS_AFTER_REFIT = 2


@dataclass(frozen=True)
class SignPlaneOptions(MethodOptions):
    """Options of ``signplane``.

    Attributes:
        planes: number of sign planes, 1 to 3.
        hadamard: largest Hadamard block, a power of two; 1 means none.
        balance: scale the columns before the transform.
        random_signs: flip columns at random before the transform (kept in the column scale).
        rounds: rounds of row scale and sign refinement after the error feedback.
        column_refits: least-squares refits of the column scale, each with two more such rounds.
    """

    planes: int = 1
    hadamard: int = 128
    balance: bool = True
    random_signs: bool = False
    rounds: int = 6
    column_refits: int = 2


def quantize(weight: Tensor, hessian: Tensor | None, options: SignPlaneOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Inputs that never moved during calibration (zero on the diagonal of the Hessian) say nothing
    about their weights, which are taken as zero.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None.
        options: all fields are used.
    """
    metric = None
    if hessian is not None:
        weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
        metric = damped(hessian, options.damping)
    scale = _initial_column_scale(weight, options)
    inner, blocks = _transform(weight, metric, scale, options.hadamard)
    row_scales = solver.initial_scales(inner, options.planes)
    levels = _feedback(inner, blocks, row_scales)
    levels, row_scales = _alternate(inner, blocks, levels, row_scales, options.rounds)
    for _ in range(options.column_refits if scale is not None else 0):
        scale = _refit_column_scale(weight, metric, levels, options.hadamard)
        inner, blocks = _transform(weight, metric, scale, options.hadamard)
        levels, row_scales = _alternate(inner, blocks, levels, row_scales, _ROUNDS_AFTER_REFIT)
    signs = solver.level_signs(levels, row_scales)
    return SignPlaneLayer.uniform(
        weight.shape[1], pack_signs(signs), store_scale(row_scales), options.hadamard, scale
    )


def _initial_column_scale(weight: Tensor, options: SignPlaneOptions) -> Tensor | None:
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


def _refit_column_scale(
    weight: Tensor, metric: Tensor | None, levels: Tensor, hadamard: int
) -> Tensor:
    """Column scale that minimises the error under the Hessian for fixed signs and row scales.

    With A = levels Hadamard the error is a quadratic in b with the matrix (A^T A) * H, elementwise;
    it is diagonal where H is the identity.
    """
    basis = block_hadamard(levels, hadamard)
    if metric is None:
        diagonal = basis.square().sum(dim=0).double()
        ridge = (1e-9 * diagonal.mean()).clamp_min(1e-30)
        scale = ((basis * weight).sum(dim=0) / (diagonal + ridge)).float()
    else:
        normal = ((basis.T @ basis) * metric).double()
        right = (basis * (weight @ metric)).sum(dim=0).double()
        ridge = (1e-9 * normal.diagonal().mean()).clamp_min(1e-30)
        normal += ridge * torch.eye(len(normal), dtype=torch.float64)
        scale = torch.linalg.solve(normal, right).float()
    floor = _SMALLEST_SCALE * float(scale.abs().mean()) or _SMALLEST_SCALE
    return store_scale(torch.where(scale < 0, -1.0, 1.0) * scale.abs().clamp_min(floor))


def _transform(
    weight: Tensor, metric: Tensor | None, scale: Tensor | None, hadamard: int
) -> tuple[Tensor, list[Tensor]]:
    """Weight and Hessian as seen behind the column transform; the latter as diagonal blocks."""
    exact = torch.ones(weight.shape[1]) if scale is None else scale.float()
    inner = block_hadamard(weight / exact, hadamard)
    if metric is None:
        return inner, _white_blocks(exact, hadamard)
    metric = metric * exact[:, None] * exact[None, :]
    metric = block_hadamard(block_hadamard(metric, hadamard).T, hadamard)
    return inner, [(metric + metric.T) / 2]


def _white_blocks(scale: Tensor, hadamard: int) -> list[Tensor]:
    """The Hessian of white inputs behind the column transform, one matrix a Hadamard block."""
    blocks = []
    for start, size, count in hadamard_blocks(len(scale), hadamard):
        for part in scale[start : start + size * count].view(count, size):
            block = walsh_hadamard(walsh_hadamard(torch.diag(part.square())).T)
            blocks.append((block + block.T) / 2)
    return blocks


def _parts(weight: Tensor, blocks: list[Tensor]) -> tuple[Tensor, ...]:
    """The columns of each block; copies, whose columns lie closer together in memory."""
    if len(blocks) == 1:
        return (weight,)
    return tuple(part.contiguous() for part in weight.split([len(b) for b in blocks], dim=1))


def _feedback(weight: Tensor, blocks: list[Tensor], scales: Tensor) -> Tensor:
    """Levels by error feedback, block by block."""
    return torch.cat(
        [
            solver.error_feedback(part, feedback_factor(block), scales)
            for part, block in zip(_parts(weight, blocks), blocks, strict=True)
        ],
        dim=1,
    )


def _alternate(
    weight: Tensor, blocks: list[Tensor], levels: Tensor, scales: Tensor, rounds: int
) -> tuple[Tensor, Tensor]:
    """Rounds of least-squares row scales and one sweep over the signs; returns levels, scales."""
    parts = _parts(weight, blocks)
    for _ in range(rounds):
        signs = solver.level_signs(levels, scales)
        scales = solver.least_squares_scales(weight, signs, blocks)
        levels = (signs * scales[..., None]).sum(dim=0)
        swept = [
            solver.coordinate_descent(part, old, block, scales)
            for part, old, block in zip(parts, _parts(levels, blocks), blocks, strict=True)
        ]
        levels = swept[0] if len(swept) == 1 else torch.cat(swept, dim=1)
    return levels, scales
