# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Form ``factored``: two sign planes one after the other, for double binary factorization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.bits import bytes_per_row, unpack_signs
from hbvla_ros.packed.checks import (
    Expected,
    Fault,
    axis_faults,
    check_names,
    expected_scale,
    scale_faults,
    shape_faults,
)
from hbvla_ros.packed.forms.transform import TRANSFORM_AXES, ColumnTransform
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.log_scales import read_scale

_NEEDED = {'outer': 2, 'inner': 2, 'row_scales': 1, 'inner_scales': 1}
_OPTIONAL = {'row_scales_span': 1, 'inner_scales_span': 1, **TRANSFORM_AXES}


@dataclass(frozen=True)
class FactoredLayer(QuantizedLayer):
    """``W x = row_scales * (S1 @ (inner_scales * (S2 @ T x)))`` (spec section 5).

    Attributes:
        columns: number of inputs.
        outer: uint8 (rows, ceil(width / 8)), packed signs S1.
        inner: uint8 (width, ceil(columns / 8)), packed signs S2.
        row_scales: float16 or bfloat16 (rows,).
        inner_scales: float16 or bfloat16 (width,).
        hadamard: largest Hadamard block of the column transform, 1 for none.
        column_scale: float16 or bfloat16 (columns,), or None.
        permutation: int16 or int32 (columns,), or None.
        row_scales_span: float32 (2,) where the row scales are 8-bit codes, else None.
        inner_scales_span: the same of the inner scales.
        column_scale_span: the same of the column scale.
    """

    form = 'factored'
    columns: int
    outer: Tensor
    inner: Tensor
    row_scales: Tensor
    inner_scales: Tensor
    hadamard: int = 1
    column_scale: Tensor | None = None
    permutation: Tensor | None = None
    row_scales_span: Tensor | None = None
    inner_scales_span: Tensor | None = None
    column_scale_span: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return len(self.outer)

    @property
    def width(self) -> int:
        """Inner width: rows of S2, columns of S1."""
        return len(self.inner)

    @property
    def nominal_bits(self) -> float:
        """Signs of both factors per weight."""
        return self.width * (self.rows + self.columns) / self.weights

    @property
    def transform(self) -> ColumnTransform:
        """The column transform."""
        return ColumnTransform(
            self.columns,
            self.hadamard,
            self.column_scale,
            self.permutation,
            self.column_scale_span,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by part name."""
        spans = {
            'row_scales_span': self.row_scales_span,
            'inner_scales_span': self.inner_scales_span,
        }
        return {
            'outer': self.outer,
            'inner': self.inner,
            'row_scales': self.row_scales,
            'inner_scales': self.inner_scales,
            **{name: span for name, span in spans.items() if span is not None},
            **self.transform.tensors(),
        }

    def options(self) -> dict[str, Any]:
        """Columns and Hadamard block."""
        return {'columns': self.columns, 'hadamard': self.hadamard}

    @staticmethod
    def from_parts(options: dict[str, Any], parts: dict[str, Tensor]) -> FactoredLayer:
        """Inverse of :meth:`options` and :meth:`tensors`."""
        check_names('option', options, ('columns', 'hadamard'))
        check_names('tensor', parts, _NEEDED, _OPTIONAL)
        return FactoredLayer(columns=options['columns'], hadamard=options['hadamard'], **parts)

    def expected(self) -> Expected:
        """Shape and dtypes of the stored tensors."""
        return {
            'outer': ((self.rows, bytes_per_row(self.width)), (torch.uint8,)),
            'inner': ((self.width, bytes_per_row(self.columns)), (torch.uint8,)),
            **expected_scale('row_scales', (self.rows,), self.row_scales_span),
            **expected_scale('inner_scales', (self.width,), self.inner_scales_span),
            **self.transform.expected(),
        }

    def faults(self) -> Iterator[Fault]:
        """What keeps the tensors and options from making a layer."""
        yield from axis_faults(self.tensors(), {**_NEEDED, **_OPTIONAL})
        yield from self.transform.option_faults()
        yield from shape_faults(self.tensors(), self.expected())
        yield from scale_faults('row_scales', self.row_scales, self.row_scales_span)
        yield from scale_faults('inner_scales', self.inner_scales, self.inner_scales_span)
        yield from self.transform.value_faults()

    def apply(self, inputs: Tensor) -> Tensor:
        """Map activations (..., columns) to (..., rows)."""
        dtype = inputs.dtype
        hidden = self.transform.apply(inputs) @ unpack_signs(self.inner, self.columns, dtype).T
        hidden = hidden * read_scale(self.inner_scales, self.inner_scales_span).to(dtype)
        scales = read_scale(self.row_scales, self.row_scales_span).to(dtype)
        return hidden @ unpack_signs(self.outer, self.width, dtype).T * scales

    def reconstruct(self) -> Tensor:
        """The weight the layer stands for, float32 (rows, columns)."""
        row_scales = read_scale(self.row_scales, self.row_scales_span)
        inner_scales = read_scale(self.inner_scales, self.inner_scales_span)
        outer = unpack_signs(self.outer, self.width) * row_scales[:, None]
        inner = unpack_signs(self.inner, self.columns) * inner_scales[:, None]
        return self.transform.undo(outer @ inner)
