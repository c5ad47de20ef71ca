# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Form ``grouped``: a sum of sign planes with a few levels for each row and group of columns.

This is what the published binary formats (BiLLM, HBLLM, HBVLA, Bi-VLM) come to when all they need
is stored: a dense/sparse membership bitmap is a second sign plane (spec 1.6), group means and
scales are coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.checks import (
    INDEX_DTYPES,
    SCALE_DTYPES,
    Expected,
    Fault,
    axis_faults,
    check_names,
    index_faults,
    scale_faults,
    shape_faults,
)
from hbvla_ros.packed.forms.grouped_part import PART_AXES, PART_OPTIONS, GroupedPart
from hbvla_ros.packed.layer import QuantizedLayer

_PANEL_AXES = {'panel': 2, 'panel_scales': 1, 'panel_columns': 1}


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
        panel_columns: int16 or int32 (c,), columns of the layer that the panel is added to.
    """

    form = 'grouped'
    columns: int
    parts: Mapping[str, GroupedPart]
    paper_bits: float
    panel: Tensor | None = None
    panel_scales: Tensor | None = None
    panel_columns: Tensor | None = None

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
        return {**stored, **self._panel_tensors()}

    def options(self) -> dict[str, Any]:
        """Columns, paper bits and the options of the parts."""
        parts = {name: part.options() for name, part in self.parts.items()}
        return {'columns': self.columns, 'paper_bits': self.paper_bits, 'parts': parts}

    @staticmethod
    def from_parts(options: dict[str, Any], parts: dict[str, Tensor]) -> GroupedLayer:
        """Inverse of :meth:`options` and :meth:`tensors`."""
        check_names('option', options, ('columns', 'paper_bits', 'parts'))
        columns, rest, grouped = options['columns'], dict(parts), {}
        for name, part_options in options['parts'].items():
            check_names(f'option of {name}', part_options, PART_OPTIONS)
            own: dict[str, Any] = {
                key: rest.pop(f'{name}_{key}') for key in PART_AXES if f'{name}_{key}' in rest
            }
            check_names(f'tensor of {name}', own, ('planes', 'coefficients', 'runs'), PART_AXES)
            values = {**part_options, 'products': tuple(part_options['products'])}
            grouped[name] = GroupedPart(columns=columns, **own, **values)
        check_names('tensor', rest, (), _PANEL_AXES)
        return GroupedLayer(columns, grouped, options['paper_bits'], **rest)

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

    def faults(self) -> Iterator[Fault]:
        """What keeps the tensors and options from making a layer."""
        if not self.parts:
            yield 'parts', 'there are none'
        for name, part in self.parts.items():
            yield from ((f'{name}_{key}', problem) for key, problem in part.faults())
            if part.planes.shape[1] != self.rows:
                yield f'{name}_planes', f'{part.planes.shape[1]} rows, the layer has {self.rows}'
            if part.columns != self.columns:
                yield f'{name}_columns', f'{part.columns}, the layer has {self.columns}'
        if type(self.paper_bits) not in (int, float) or not 0 <= self.paper_bits < math.inf:
            yield 'paper_bits', f'expected a number, found {self.paper_bits!r}'
        panel = self._panel_tensors()
        for name in _PANEL_AXES if panel else ():
            if name not in panel:
                yield name, f'it is missing, there is {", ".join(panel)}'
        yield from axis_faults(panel, _PANEL_AXES)
        yield from shape_faults(self.tensors(), self.expected())
        yield from scale_faults('panel_scales', self.panel_scales)
        yield from index_faults('panel_columns', self.panel_columns, self.columns)

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

    def _panel_tensors(self) -> dict[str, Tensor]:
        """The tensors of the panel by part name; empty without one."""
        named = {name: getattr(self, name) for name in _PANEL_AXES}
        return {name: tensor for name, tensor in named.items() if tensor is not None}
