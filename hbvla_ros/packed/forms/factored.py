# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Form ``factored``: two sign planes one after the other, for double binary factorization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.bits import bytes_per_row, unpack_signs
from hbvla_ros.packed.forms.transform import ColumnTransform
from hbvla_ros.packed.layer import SCALE_DTYPES, Expected, QuantizedLayer


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
        return ColumnTransform(self.columns, self.hadamard, self.column_scale, self.permutation)

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by part name."""
        return {
            'outer': self.outer,
            'inner': self.inner,
            'row_scales': self.row_scales,
            'inner_scales': self.inner_scales,
            **self.transform.tensors(),
        }

    def options(self) -> dict[str, Any]:
        """Columns and Hadamard block."""
        return {'columns': self.columns, 'hadamard': self.hadamard}

    @staticmethod
    def from_parts(options: dict[str, Any], parts: dict[str, Tensor]) -> FactoredLayer:
        """Inverse of :meth:`options` and :meth:`tensors`."""
        return FactoredLayer(columns=options['columns'], hadamard=options['hadamard'], **parts)

    def expected(self) -> Expected:
        """Shape and dtypes of the stored tensors."""
        return {
            'outer': ((self.rows, bytes_per_row(self.width)), (torch.uint8,)),
            'inner': ((self.width, bytes_per_row(self.columns)), (torch.uint8,)),
            'row_scales': ((self.rows,), SCALE_DTYPES),
            'inner_scales': ((self.width,), SCALE_DTYPES),
            **self.transform.expected(),
        }

    def apply(self, inputs: Tensor) -> Tensor:
        """Map activations (..., columns) to (..., rows)."""
        dtype = inputs.dtype
        hidden = self.transform.apply(inputs) @ unpack_signs(self.inner, self.columns, dtype).T
        hidden = hidden * self.inner_scales.to(dtype)
        return hidden @ unpack_signs(self.outer, self.width, dtype).T * self.row_scales.to(dtype)

    def reconstruct(self) -> Tensor:
        """The weight the layer stands for, float32 (rows, columns)."""
        outer = unpack_signs(self.outer, self.width) * self.row_scales.float()[:, None]
        inner = unpack_signs(self.inner, self.columns) * self.inner_scales.float()[:, None]
        return self.transform.undo(outer @ inner)
