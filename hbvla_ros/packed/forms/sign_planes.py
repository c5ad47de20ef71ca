# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Form ``sign_planes``: one to three sign planes with row scales, their number by tile of rows."""

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
    number_faults,
    scale_faults,
    shape_faults,
)
from hbvla_ros.packed.forms.transform import TRANSFORM_AXES, ColumnTransform
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.log_scales import read_scale

ROW_TILE = 128
MOST_PLANES = 3
_MOST_ROWS = 2**31 - 1
_NEEDED = {'planes': 2, 'row_scales': 1}
_OPTIONAL = {'row_scales_span': 1, 'tile_planes': 1, **TRANSFORM_AXES}


def rows_of_plane(rows: int, tile_planes: Tensor, plane: int) -> Tensor:
    """Indices of the rows whose tile has more than ``plane`` sign planes.

    Args:
        rows: rows of the layer.
        tile_planes: integers (ceil(rows / 128),), sign planes of each tile of 128 rows.
        plane: number of the plane, from 0.
    """
    counts = tile_planes.long().repeat_interleave(ROW_TILE)[:rows]
    return (counts > plane).nonzero().flatten()


@dataclass(frozen=True)
class SignPlaneLayer(QuantizedLayer):
    """``W x = sum_p row_scales_p * (S_p @ T x)``.

    The planes lie one after another, plane 0 with all rows first; plane p has only the rows of
    the tiles with more than p planes.

    Attributes:
        columns: number of inputs.
        planes: uint8 (plane rows, ceil(columns / 8)), packed signs.
        row_scales: float16 or bfloat16 (plane rows,).
        hadamard: largest Hadamard block of the column transform, 1 for none.
        column_scale: float16 or bfloat16 (columns,), or None.
        permutation: int16 or int32 (columns,), or None.
        tile_planes: uint8 (ceil(rows / 128),), planes of each tile of 128 rows, or None where all
            rows have the same number, ``uniform_planes``.
        uniform_planes: that number; 0 with ``tile_planes``, whose ``row_count`` is then given.
        row_count: rows of the layer; needed with ``tile_planes`` only.
        row_scales_span: float32 (2,) where the row scales are 8-bit codes, else None.
        column_scale_span: the same of the column scale.
    """

    form = 'sign_planes'
    columns: int
    planes: Tensor
    row_scales: Tensor
    hadamard: int = 1
    column_scale: Tensor | None = None
    permutation: Tensor | None = None
    tile_planes: Tensor | None = None
    uniform_planes: int = 1
    row_count: int = 0
    row_scales_span: Tensor | None = None
    column_scale_span: Tensor | None = None

    @staticmethod
    def uniform(
        columns: int,
        planes: Tensor,
        row_scales: Tensor,
        hadamard: int = 1,
        column_scale: Tensor | None = None,
        permutation: Tensor | None = None,
        row_scales_span: Tensor | None = None,
        column_scale_span: Tensor | None = None,
    ) -> SignPlaneLayer:
        """A layer with the same number of planes in all rows.

        Args:
            columns: number of inputs.
            planes: uint8 (P, rows, ceil(columns / 8)).
            row_scales: float16 or bfloat16 (P, rows).
            hadamard: see the class.
            column_scale: see the class.
            permutation: see the class.
            row_scales_span: see the class.
            column_scale_span: see the class.
        """
        return SignPlaneLayer(
            columns,
            planes.flatten(0, 1),
            row_scales.flatten(),
            hadamard,
            column_scale,
            permutation,
            uniform_planes=len(planes),
            row_scales_span=row_scales_span,
            column_scale_span=column_scale_span,
        )

    @staticmethod
    def tiled(
        columns: int,
        planes: Tensor,
        row_scales: Tensor,
        tile_planes: Tensor,
        hadamard: int = 1,
        column_scale: Tensor | None = None,
        permutation: Tensor | None = None,
        row_scales_span: Tensor | None = None,
        column_scale_span: Tensor | None = None,
    ) -> SignPlaneLayer:
        """A layer whose tiles of 128 rows have different numbers of planes.

        Args:
            columns: number of inputs.
            planes: uint8 (P, rows, ceil(columns / 8)); what lies beyond a tile's count is left out.
            row_scales: float16 or bfloat16 (P, rows).
            tile_planes: integers (ceil(rows / 128),), each 1 to P.
            hadamard: see the class.
            column_scale: see the class.
            permutation: see the class.
            row_scales_span: see the class.
            column_scale_span: see the class.
        """
        rows = planes.shape[1]
        kept = [rows_of_plane(rows, tile_planes, plane) for plane in range(len(planes))]
        return SignPlaneLayer(
            columns,
            torch.cat([plane[index] for plane, index in zip(planes, kept, strict=True)]),
            torch.cat([scale[index] for scale, index in zip(row_scales, kept, strict=True)]),
            hadamard,
            column_scale,
            permutation,
            tile_planes=tile_planes.to(torch.uint8),
            uniform_planes=0,
            row_count=rows,
            row_scales_span=row_scales_span,
            column_scale_span=column_scale_span,
        )

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return self.row_count or len(self.planes) // self.uniform_planes

    @property
    def nominal_bits(self) -> float:
        """Mean number of sign planes of a row."""
        return len(self.planes) / self.rows

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
        parts = {
            'planes': self.planes,
            'row_scales': self.row_scales,
            **self.transform.tensors(),
        }
        if self.row_scales_span is not None:
            parts['row_scales_span'] = self.row_scales_span
        if self.tile_planes is not None:
            parts['tile_planes'] = self.tile_planes
        return parts

    def options(self) -> dict[str, Any]:
        """Columns, Hadamard block and either the number of planes or that of rows."""
        options = {'columns': self.columns, 'hadamard': self.hadamard}
        if self.tile_planes is not None:
            return {**options, 'rows': self.row_count}
        return {**options, 'planes': self.uniform_planes}

    @staticmethod
    def from_parts(options: dict[str, Any], parts: dict[str, Tensor]) -> SignPlaneLayer:
        """Inverse of :meth:`options` and :meth:`tensors`."""
        size = 'rows' if 'tile_planes' in parts else 'planes'
        check_names('option', options, ('columns', 'hadamard', size))
        check_names('tensor', parts, _NEEDED, _OPTIONAL)
        return SignPlaneLayer(
            columns=options['columns'],
            hadamard=options['hadamard'],
            uniform_planes=options.get('planes', 0),
            row_count=options.get('rows', 0),
            **parts,
        )

    def expected(self) -> Expected:
        """Shape and dtypes of the stored tensors."""
        total = len(self.planes)
        if self.tile_planes is not None:
            total = sum(len(index) for index in self._kept_rows())
        return {
            'planes': ((total, bytes_per_row(self.columns)), (torch.uint8,)),
            **expected_scale('row_scales', (total,), self.row_scales_span),
            'tile_planes': ((-(-self.rows // ROW_TILE),), (torch.uint8,)),
            **self.transform.expected(),
        }

    def faults(self) -> Iterator[Fault]:
        """What keeps the tensors and options from making a layer."""
        yield from axis_faults(self.tensors(), {**_NEEDED, **_OPTIONAL})
        yield from self.transform.option_faults()
        yield from self._count_faults()
        yield from shape_faults(self.tensors(), self.expected())
        yield from scale_faults('row_scales', self.row_scales, self.row_scales_span)
        yield from self.transform.value_faults()

    def _count_faults(self) -> Iterator[Fault]:
        """Numbers of rows and planes that cannot be."""
        if self.tile_planes is None:
            yield from number_faults('planes', self.uniform_planes, 1, MOST_PLANES)
            if len(self.planes) % self.uniform_planes:
                yield 'planes', f'{len(self.planes)} rows are no {self.uniform_planes} equal planes'
            return
        yield from number_faults('rows', self.row_count, 1, _MOST_ROWS)
        tiles = -(-self.row_count // ROW_TILE)
        if len(self.tile_planes) != tiles or self.tile_planes.dtype != torch.uint8:
            found = f'{tuple(self.tile_planes.shape)} {self.tile_planes.dtype}'
            yield 'tile_planes', f'expected ({tiles},) uint8, found {found}'
        counts = self.tile_planes
        wrong = counts[(counts < 1) | (counts > MOST_PLANES)]
        if len(wrong):
            yield (
                'tile_planes',
                f'a tile of {int(wrong[0])} planes, 1 to {MOST_PLANES} are possible',
            )

    def split(self) -> Iterator[tuple[Tensor | None, Tensor, Tensor]]:
        """The planes one by one.

        Yields:
            (row indices, or None for all rows; uint8 planes (n, bytes); float32 row scales (n,)).
        """
        scales = read_scale(self.row_scales, self.row_scales_span)
        if self.tile_planes is None:
            shape = (self.uniform_planes, self.rows)
            for plane, scale in zip(
                self.planes.unflatten(0, shape), scales.unflatten(0, shape), strict=True
            ):
                yield None, plane, scale
            return
        start = 0
        for index in self._kept_rows():
            part = slice(start, start + len(index))
            yield index, self.planes[part], scales[part]
            start = part.stop

    def apply(self, inputs: Tensor) -> Tensor:
        """Map activations (..., columns) to (..., rows)."""
        inputs = self.transform.apply(inputs)
        outputs = inputs.new_zeros(*inputs.shape[:-1], self.rows)
        for index, plane, scale in self.split():
            signs = unpack_signs(plane, self.columns, inputs.dtype)
            product = (inputs @ signs.T) * scale.to(inputs.dtype)
            if index is None:
                outputs = outputs + product
            else:
                outputs[..., index] += product
        return outputs

    def reconstruct(self) -> Tensor:
        """The weight the layer stands for, float32 (rows, columns)."""
        weight = torch.zeros(self.rows, self.columns, device=self.planes.device)
        for index, plane, scale in self.split():
            product = scale[:, None] * unpack_signs(plane, self.columns)
            weight[slice(None) if index is None else index] += product
        return self.transform.undo(weight)

    def _kept_rows(self) -> list[Tensor]:
        """Row indices of each plane; with ``tile_planes`` only."""
        assert self.tile_planes is not None
        most = int(self.tile_planes.max())
        return [rows_of_plane(self.rows, self.tile_planes, plane) for plane in range(most)]
