# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``dbf``: double binary factorization ``W ~ diag(a) S1 diag(c) S2 T`` (spec section 5).

T is the column balance and block Hadamard transform of ``signplane``. Two sign planes one after
the other with an inner width k between them: stored bits are about k (rows + columns) / weights,
so that any budget is met by k. The factors are found by alternating directions under the full
Hessian and improved by descent over signs and scales, with the scales as they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import bytes_per_row, pack_signs
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.column_basis import (
    ColumnBasis,
    StoredScale,
    balance,
    principal_signs,
    refit_scale,
)
from hbvla_ros.quantization.factorization.admm import alternate
from hbvla_ros.quantization.factorization.descent import Descent, DoubleSigns
from hbvla_ros.quantization.factorization.start import EigenProblem
from hbvla_ros.quantization.hessian import damped
from hbvla_ros.quantization.options import MethodOptions

_SPAN_BYTES = 8


@dataclass(frozen=True)
class DbfOptions(MethodOptions):
    """Options of ``dbf``.

    Attributes:
        width: inner width k; 0 takes it from ``stored_bits``.
        stored_bits: stored bits a weight that the width may take, scales included.
        hadamard: largest Hadamard block, a power of two; 1 for none.
        steps: alternating steps of the factors; the time is about proportional to them.
        rounds: rounds of descent over all signs and scales after them.
        scale_bits: 8 or 16 bits a scale.
    """

    damping: float = 0.05
    width: int = 0
    stored_bits: float = 1.05
    hadamard: int = 128
    steps: int = 240
    rounds: int = 4
    scale_bits: Literal[8, 16] = 8

    def __post_init__(self) -> None:
        """Refuse what no layer can have."""
        if self.width < 0 or self.steps < 1 or self.rounds < 0:
            raise ValueError('width and rounds must not be negative, steps must be positive')
        if self.hadamard < 1 or self.hadamard & (self.hadamard - 1):
            raise ValueError(f'hadamard must be a power of two, got {self.hadamard}')

    def stored_bytes(self, rows: int, columns: int, width: int) -> int:
        """Bytes of a layer of that inner width."""
        return bytes_of_width(rows, columns, width, self.scale_bits)

    def width_for(self, rows: int, columns: int) -> int:
        """Inner width of a layer: ``width``, or what ``stored_bits`` buy.

        Raises:
            HbvlaError: the budget does not buy a width of 1; says which one does.
        """
        if self.width:
            return self.width
        budget = int(self.stored_bits * rows * columns / 8)
        width = width_for_bytes(rows, columns, budget, self.scale_bits)
        if width < 1:
            least = 8 * self.stored_bytes(rows, columns, 1) / (rows * columns)
            raise HbvlaError(
                f'stored_bits {self.stored_bits:g}: dbf takes at least {least:.3f} on a layer of '
                f'{rows} x {columns}'
            )
        return width


def bytes_of_width(rows: int, columns: int, width: int, scale_bits: int = 8) -> int:
    """Bytes of a layer: signs of both factors, row, inner and column scales.

    Args:
        rows: outputs.
        columns: inputs.
        width: inner width.
        scale_bits: 8 or 16.
    """
    signs = rows * bytes_per_row(width) + width * bytes_per_row(columns)
    spans = 3 * _SPAN_BYTES if scale_bits == 8 else 0
    return signs + (rows + width + columns) * scale_bits // 8 + spans


def width_for_bytes(rows: int, columns: int, budget: int, scale_bits: int = 8) -> int:
    """Largest inner width within a number of bytes, 0 where not even 1 is.

    Args:
        rows: outputs.
        columns: inputs.
        budget: bytes of the whole layer; never exceeded.
        scale_bits: 8 or 16.
    """
    low, high = 0, max(8 * budget // (rows + columns), 0) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if bytes_of_width(rows, columns, middle, scale_bits) <= budget:
            low = middle
        else:
            high = middle
    return low


def quantize(weight: Tensor, hessian: Tensor | None, options: DbfOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Inputs that never moved during calibration (zero on the diagonal of the Hessian) say nothing
    about their weights, which are taken as zero.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None for
            white inputs.
        options: all fields are used.

    Raises:
        HbvlaError: the budget does not buy an inner width of 1.
    """
    width = options.width_for(*weight.shape)
    if hessian is None:
        metric = torch.eye(weight.shape[1], device=weight.device)
    else:
        weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
        metric = damped(hessian, options.damping)
    scale = StoredScale.of(balance(weight) * principal_signs(metric), options.scale_bits)
    basis = ColumnBasis(scale.values, options.hadamard)
    inner, curved = basis.inner(weight), basis.blocks(metric)[0][0]
    generator = torch.Generator().manual_seed(options.seed)
    factors = alternate(EigenProblem.of(inner, curved), width, options.steps, generator)
    descent = Descent(DoubleSigns.of(*factors), inner, curved)
    pulled = weight @ metric
    for _ in range(options.rounds):
        levels = ColumnBasis(None, options.hadamard).outer(descent.signs.levels())
        refitted = refit_scale(levels, weight, metric, pulled, scale.values)
        scale = StoredScale.of(refitted, options.scale_bits)
        basis = ColumnBasis(scale.values, options.hadamard)
        descent.move(basis.inner(weight), basis.blocks(metric)[0][0])
        _improve(descent)
    return _layer(descent, scale, options)


def _improve(descent: Descent) -> None:
    """One round over all signs and scales."""
    descent.fit_inner_scales()
    descent.sweep_outer()
    descent.fit_inner_scales()
    descent.sweep_inner()


def _layer(descent: Descent, column_scale: StoredScale, options: DbfOptions) -> FactoredLayer:
    """The layer; scales are rounded one after the other, each with what follows fitted to it."""
    signs = descent.signs
    descent.fit_inner_scales()
    inner_scales = StoredScale.of(signs.inner_scales, options.scale_bits)
    signs.inner_scales = inner_scales.values
    descent.sweep_outer()
    row_scales = StoredScale.of(signs.row_scales, options.scale_bits)
    signs.row_scales = row_scales.values
    descent.sweep_outer(fit_scales=False)
    return FactoredLayer(
        columns=signs.inner_signs.shape[1],
        outer=pack_signs(signs.outer_signs),
        inner=pack_signs(signs.inner_signs),
        row_scales=row_scales.codes,
        inner_scales=inner_scales.codes,
        hadamard=options.hadamard,
        column_scale=column_scale.codes,
        row_scales_span=row_scales.span,
        inner_scales_span=inner_scales.span,
        column_scale_span=column_scale.span,
    )
