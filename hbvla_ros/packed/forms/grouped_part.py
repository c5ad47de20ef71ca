# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One term of form ``grouped``: sign planes with a few levels for each row and group of columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.bits import bytes_per_row, unpack_signs
from hbvla_ros.packed.checks import (
    INDEX_DTYPES,
    SCALE_DTYPES,
    Expected,
    Fault,
    axis_faults,
    block_faults,
    number_faults,
    scale_faults,
    shape_faults,
)
from hbvla_ros.packed.forms.transform import ColumnTransform
from hbvla_ros.packed.hadamard import block_hadamard

PART_AXES = {'planes': 3, 'coefficients': 3, 'runs': 1, 'permutation': 1}
PART_OPTIONS = ('products', 'bands', 'hadamard', 'row_hadamard')
_MOST_PLANES = 8
# Rows expanded at a time, which bounds the memory.
_TILE = 512


@dataclass(frozen=True)
class GroupedPart:
    """One term of a grouped layer.

    A level is ``sum_c coefficients[c] * product of the planes in products[c]``; product 0 is the
    empty one, so its coefficient is the mean. One plane with a mean has products (0, 1); dense
    and sparse group around a shared mean (0, 1, 2); with means of their own (0, 1, 2, 3).

    Groups are runs of transformed columns. With ``bands`` = 2 the columns of a run belong to two
    groups by turns: low and high Haar coefficients.

    Attributes:
        columns: inputs of the layer.
        planes: uint8 (P, rows, ceil(width / 8)), packed signs over the transformed columns.
        products: one bit mask of planes for each coefficient.
        coefficients: float16 or bfloat16 (C, rows, runs * bands).
        runs: int16 or int32 (runs,), columns of each run; adds up to the width.
        bands: 1 or 2.
        hadamard: largest Hadamard block of the column transform: 1 none, 2 Haar.
        row_hadamard: the same along the rows of the part (outputs): 1 none, 2 Haar.
        permutation: int16 or int32 (width,), columns the part uses, or None for all.
    """

    columns: int
    planes: Tensor
    products: tuple[int, ...]
    coefficients: Tensor
    runs: Tensor
    bands: int = 1
    hadamard: int = 1
    row_hadamard: int = 1
    permutation: Tensor | None = None

    @property
    def transform(self) -> ColumnTransform:
        """The column transform."""
        return ColumnTransform(self.columns, self.hadamard, None, self.permutation)

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by part name."""
        return {
            'planes': self.planes,
            'coefficients': self.coefficients,
            'runs': self.runs,
            **self.transform.tensors(),
        }

    def options(self) -> dict[str, Any]:
        """What is needed besides the tensors."""
        return {
            'products': list(self.products),
            'bands': self.bands,
            'hadamard': self.hadamard,
            'row_hadamard': self.row_hadamard,
        }

    def expected(self) -> Expected:
        """Shape and dtypes of the stored tensors."""
        planes, rows, width = len(self.planes), self.planes.shape[1], self.transform.width
        groups = len(self.runs) * self.bands
        return {
            'planes': ((planes, rows, bytes_per_row(width)), (torch.uint8,)),
            'coefficients': ((len(self.products), rows, groups), SCALE_DTYPES),
            'runs': ((len(self.runs),), INDEX_DTYPES),
            **self.transform.expected(),
        }

    def faults(self) -> Iterator[Fault]:
        """What keeps the tensors and options from making a part; names without the part's."""
        yield from axis_faults(self.tensors(), PART_AXES)
        yield from self.transform.option_faults()
        yield from block_faults('row_hadamard', self.row_hadamard)
        yield from number_faults('bands', self.bands, 1, 2)
        yield from number_faults('planes', len(self.planes), 1, _MOST_PLANES)
        if not self.products:
            yield 'products', 'there are none'
        for product in self.products:
            yield from number_faults('products', product, 0, 2 ** len(self.planes) - 1)
        used = {p for p in range(len(self.planes)) if any(k >> p & 1 for k in self.products)}
        if len(used) < len(self.planes):
            yield 'planes', f'there are {len(self.planes)}, the products take {len(used)} of them'
        yield from shape_faults(self.tensors(), self.expected())
        runs, width = self.runs.long(), self.transform.width
        if int(runs.min()) < 1 or int(runs.sum()) != width:
            yield 'runs', f'they add up to {int(runs.sum())} of {width} columns, each at least 1'
        yield from scale_faults('coefficients', self.coefficients)
        yield from self.transform.value_faults()

    def group_of_column(self) -> Tensor:
        """int64 (width,): the group of each transformed column."""
        runs = self.runs.long()
        run = torch.arange(len(runs), device=runs.device).repeat_interleave(runs)
        start = (runs.cumsum(0) - runs)[run]
        place = torch.arange(len(run), device=runs.device) - start
        return run * self.bands + place % self.bands

    def levels(self, rows: slice) -> Tensor:
        """float32 (n, width): the transformed weights of some rows."""
        width = self.transform.width
        signs = unpack_signs(self.planes[:, rows], width)
        group = self.group_of_column()
        total = torch.zeros(signs.shape[1], width, device=signs.device)
        for product, coefficient in zip(self.products, self.coefficients, strict=True):
            term = coefficient[rows].float()[:, group]
            for plane in range(len(signs)):
                if product >> plane & 1:
                    term = term * signs[plane]
            total += term
        return total

    def apply(self, inputs: Tensor) -> Tensor:
        """Map activations (..., columns) to (..., rows)."""
        inputs = self.transform.apply(inputs)
        outputs = torch.cat(
            [inputs @ self.levels(rows).to(inputs.dtype).T for rows in self._tiles()], dim=-1
        )
        return block_hadamard(outputs, self.row_hadamard)

    def reconstruct(self) -> Tensor:
        """The part of the weight it stands for, float32 (rows, columns)."""
        weight = torch.cat([self.levels(rows) for rows in self._tiles()])
        if self.row_hadamard > 1:
            weight = block_hadamard(weight.T, self.row_hadamard).T
        return self.transform.undo(weight)

    def _tiles(self) -> Iterator[slice]:
        """Rows in tiles, which bounds the memory of the expanded signs."""
        for start in range(0, self.planes.shape[1], _TILE):
            yield slice(start, start + _TILE)
