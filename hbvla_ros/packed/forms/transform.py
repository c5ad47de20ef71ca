# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Column transform T: gather, column scale, block Hadamard; the same for all forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.packed.checks import (
    INDEX_DTYPES,
    Expected,
    Fault,
    block_faults,
    expected_scale,
    index_faults,
    number_faults,
    scale_faults,
)
from hbvla_ros.packed.hadamard import block_hadamard
from hbvla_ros.packed.log_scales import read_scale

# Tensors of a transform, each with its number of axes.
TRANSFORM_AXES = {'column_scale': 1, 'column_scale_span': 1, 'permutation': 1}
MOST_COLUMNS = 2**31 - 1


@dataclass(frozen=True)
class ColumnTransform:
    """``T x = Hadamard(column_scale * x[permutation])``.

    Hadamard blocks of 2 are one level of Haar, low and high coefficients taking turns. Random
    signs, where a method uses them, are the signs of the column scale and cost nothing.

    Attributes:
        columns: number of inputs.
        hadamard: largest Hadamard block (1: no transform), see ``hadamard_blocks``.
        column_scale: float16, bfloat16 or 8-bit codes (width,), or None for all ones.
        permutation: int16 or int32 (width,), columns in the order in which they are taken, each at
            most once; None for all of them as they are. Columns left out do not count.
        column_scale_span: float32 (2,) where the column scale is 8-bit codes, else None.
    """

    columns: int
    hadamard: int = 1
    column_scale: Tensor | None = None
    permutation: Tensor | None = None
    column_scale_span: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of transformed columns."""
        return self.columns if self.permutation is None else len(self.permutation)

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by part name."""
        parts = {
            'column_scale': self.column_scale,
            'column_scale_span': self.column_scale_span,
            'permutation': self.permutation,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def expected(self) -> Expected:
        """Shape and dtypes of the stored tensors."""
        return {
            **expected_scale('column_scale', (self.width,), self.column_scale_span),
            'permutation': ((self.width,), INDEX_DTYPES),
        }

    def option_faults(self) -> Iterator[Fault]:
        """A number of columns or a Hadamard block that cannot be."""
        yield from number_faults('columns', self.columns, 1, MOST_COLUMNS)
        yield from block_faults('hadamard', self.hadamard)

    def value_faults(self) -> Iterator[Fault]:
        """Scales that are not finite, columns that do not exist or come twice."""
        yield from scale_faults('column_scale', self.column_scale, self.column_scale_span)
        yield from index_faults('permutation', self.permutation, self.columns)

    def apply(self, inputs: Tensor) -> Tensor:
        """Transform activations (..., columns) to (..., width)."""
        if self.permutation is not None:
            inputs = inputs[..., self.permutation.long()]
        if self.column_scale is not None:
            scale = read_scale(self.column_scale, self.column_scale_span)
            inputs = inputs * scale.to(inputs.dtype)
        return block_hadamard(inputs, self.hadamard)

    def undo(self, weight: Tensor) -> Tensor:
        """From W' (rows, width) to ``W = W' T`` (rows, columns); columns left out are zero."""
        weight = block_hadamard(weight, self.hadamard)
        if self.column_scale is not None:
            scale = read_scale(self.column_scale, self.column_scale_span)
            weight = weight * scale.to(weight.dtype)
        if self.permutation is None:
            return weight
        restored = torch.zeros(len(weight), self.columns, dtype=weight.dtype, device=weight.device)
        restored[:, self.permutation.long()] = weight
        return restored
