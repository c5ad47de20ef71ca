# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Form ``grouped``: sign planes with a few levels for each row and group of columns.

This is what the published binary formats (BiLLM, HBLLM, HBVLA, Bi-VLM) come to when all they need
is stored: a dense/sparse membership bitmap is a second sign plane (spec 1.6), group means and
scales are coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.bits import bytes_per_row, unpack_signs
from hbvla_ros.packed.forms.transform import ColumnTransform
from hbvla_ros.packed.hadamard import block_hadamard
from hbvla_ros.packed.layer import INDEX_DTYPES, SCALE_DTYPES, Expected, QuantizedLayer

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


@dataclass(frozen=True)
class GroupedLayer(QuantizedLayer):
    """Sum of grouped parts, with whole columns as an int8 panel where a method wants that.

    Attributes:
        columns: number of inputs.
        parts: name (an identifier) to part; at least one, all with the same rows.
        paper_bits: what the papers print for it: sign bits of the weights and of the salient
            columns' second binarization; no bitmap, no mean, no scale.
        panel: int8 (rows, c), or None.
        panel_scales: float16 or bfloat16 (c,), one for each column of the panel.
        panel_columns: int16 or int32 (c,), the columns of the panel; no part uses them.
    """

    form = 'grouped'
    columns: int
    parts: Mapping[str, GroupedPart]
    paper_bits: float
    panel: Tensor | None = None
    panel_scales: Tensor | None = None
    panel_columns: Tensor | None = None
    _panel_names: tuple[str, ...] = field(
        default=('panel', 'panel_scales', 'panel_columns'), init=False, repr=False
    )

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return int(next(iter(self.parts.values())).planes.shape[1])

    @property
    def nominal_bits(self) -> float:
        """Bits per weight as the papers print them."""
        return self.paper_bits

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors as ``<part>_<name>``, and the panel's."""
        stored = {
            f'{part}_{name}': tensor
            for part, content in self.parts.items()
            for name, tensor in content.tensors().items()
        }
        for name in self._panel_names:
            tensor = getattr(self, name)
            if tensor is not None:
                stored[name] = tensor
        return stored

    def options(self) -> dict[str, Any]:
        """Columns, paper bits and the options of the parts."""
        parts = {name: part.options() for name, part in self.parts.items()}
        return {'columns': self.columns, 'paper_bits': self.paper_bits, 'parts': parts}

    @staticmethod
    def from_parts(options: dict[str, Any], parts: dict[str, Tensor]) -> GroupedLayer:
        """Inverse of :meth:`options` and :meth:`tensors`."""
        rest = dict(parts)
        grouped = {}
        for name, part_options in options['parts'].items():
            names = [key for key in rest if key.startswith(f'{name}_')]
            values: dict[str, Any] = {k.removeprefix(f'{name}_'): rest.pop(k) for k in names}
            values |= {**part_options, 'products': tuple(part_options['products'])}
            grouped[name] = GroupedPart(columns=options['columns'], **values)
        return GroupedLayer(options['columns'], grouped, options['paper_bits'], **rest)

    def expected(self) -> Expected:
        """Shape and dtypes of the stored tensors."""
        wanted = {
            f'{part}_{name}': value
            for part, content in self.parts.items()
            for name, value in content.expected().items()
        }
        count = 0 if self.panel_columns is None else len(self.panel_columns)
        return {
            **wanted,
            'panel': ((self.rows, count), (torch.int8,)),
            'panel_scales': ((count,), SCALE_DTYPES),
            'panel_columns': ((count,), INDEX_DTYPES),
        }

    def apply(self, inputs: Tensor) -> Tensor:
        """Map activations (..., columns) to (..., rows)."""
        first, *others = self.parts.values()
        outputs = first.apply(inputs)
        for part in others:
            outputs = outputs + part.apply(inputs)
        if self.panel is None or self.panel_columns is None or self.panel_scales is None:
            return outputs
        chosen = inputs[..., self.panel_columns.long()] * self.panel_scales.to(inputs.dtype)
        return outputs + chosen @ self.panel.to(inputs.dtype).T

    def reconstruct(self) -> Tensor:
        """The weight the layer stands for, float32 (rows, columns)."""
        first, *others = self.parts.values()
        weight = first.reconstruct()
        for part in others:
            weight = weight + part.reconstruct()
        if self.panel is not None and self.panel_columns is not None:
            assert self.panel_scales is not None, 'a panel has scales'
            weight[:, self.panel_columns.long()] += self.panel.float() * self.panel_scales.float()
        return weight
