# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Gathers the codes of all blocks into the stored parts of a grouped layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.grouped import GroupedPart
from hbvla_ros.packed.layer import store_index, store_scale
from hbvla_ros.quantization.binary.code import PlaneCode
from hbvla_ros.quantization.binary.haar import join_bands


@dataclass(frozen=True)
class BlockParts:
    """What is stored of one block.

    Attributes:
        base: codes of the bands of the non-salient columns; none where all columns are salient.
        base_columns: int64, columns of the layer in the order in which the codes have them.
        salient: code of the salient columns, or None.
        salient_columns: int64 (c,), columns of the layer.
    """

    base: list[PlaneCode]
    base_columns: Tensor
    salient: PlaneCode | None
    salient_columns: Tensor


@dataclass
class PartBuilder:
    """Collects one part of a grouped layer run by run.

    Attributes:
        columns: inputs of the layer.
        products: products of planes of every code.
        hadamard: largest Hadamard block along the columns (2: Haar); the runs must then be even
            but for the last one.
        row_hadamard: the same along the rows.
        bands: bands of a run, 1 or 2.
    """

    columns: int
    products: tuple[int, ...]
    hadamard: int = 1
    row_hadamard: int = 1
    bands: int = 1
    _planes: list[Tensor] = field(default_factory=list)
    _coefficients: list[Tensor] = field(default_factory=list)
    _indices: list[Tensor] = field(default_factory=list)

    def add(self, codes: Sequence[PlaneCode], indices: Tensor) -> None:
        """Add a run.

        Args:
            codes: one for each band (a run of a single column has one band only).
            indices: int64 (n,), columns of the layer that the run transforms, in this order.
        """
        if not len(indices):
            return
        self._planes.append(join_bands([code.planes for code in codes]))
        padded = [codes[min(band, len(codes) - 1)] for band in range(self.bands)]
        self._coefficients.append(torch.stack([code.coefficients for code in padded], dim=-1))
        self._indices.append(indices)

    def build(self) -> GroupedPart | None:
        """The part, or None when no run was added."""
        if not self._planes:
            return None
        indices = torch.cat(self._indices)
        runs = torch.tensor([len(run) for run in self._indices], device=indices.device)
        whole = torch.equal(indices, torch.arange(self.columns, device=indices.device))
        return GroupedPart(
            columns=self.columns,
            planes=pack_signs(torch.cat(self._planes, dim=-1)),
            products=self.products,
            coefficients=store_scale(torch.cat(self._coefficients, dim=-1)),
            runs=store_index(runs, self.columns),
            bands=self.bands,
            hadamard=self.hadamard,
            row_hadamard=self.row_hadamard,
            permutation=None if whole else store_index(indices, self.columns),
        )


def build_parts(
    blocks: Sequence[BlockParts], base: PartBuilder, salient: PartBuilder
) -> dict[str, GroupedPart]:
    """The parts ``base`` and ``salient`` of a layer, as far as there are any.

    Args:
        blocks: all blocks of the layer in order.
        base: empty builder of the non-salient part.
        salient: empty builder of the salient part.
    """
    for block in blocks:
        base.add(block.base, block.base_columns)
        if block.salient is not None:
            salient.add([block.salient], block.salient_columns)
    built = {'base': base.build(), 'salient': salient.build()}
    return {name: part for name, part in built.items() if part is not None}
