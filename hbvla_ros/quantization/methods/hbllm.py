# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbllm``: Haar-domain binarization with dense and sparse groups (HBLLM; spec 1.3 to 1.8, 3.3).

In blocks of 128 columns, each error fed back to the columns that follow. ``row``: salient columns
are filled with the mean of their neighbours, the block is Haar transformed along its columns, and
each row of each band gets two groups; what the salient columns then lack is coded in Haar along
the rows. ``col``: the non-salient and the salient columns are coded apart, both in Haar along the
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.binary.blocks import (
    BlockResult,
    Feedback,
    coefficient_dtype,
    prepare,
    quantize_blocks,
)
from hbvla_ros.quantization.binary.code import PlaneCode
from hbvla_ros.quantization.binary.grouping import GroupRule, Partition, Scale, search_groups
from hbvla_ros.quantization.binary.haar import (
    OFFICIAL_INVERSE,
    haar_columns,
    haar_rows,
    join_bands,
    split_bands,
)
from hbvla_ros.quantization.binary.parts import BlockParts, PartBuilder, build_parts
from hbvla_ros.quantization.binary.saliency import (
    Norm,
    fill_salient,
    hessian_score,
    other_columns,
    search_salient,
)
from hbvla_ros.quantization.options import MethodOptions


@dataclass(frozen=True)
class HbllmOptions(MethodOptions):
    """Options of ``hbllm``.

    Attributes:
        transform: 'row' or 'col', see the module.
        partition: a threshold for each row and band, or one for all rows ('global').
        shared_mean: both groups of a row share a mean (the salient part never does).
        scale: 'rms' as published, or 'mean_abs', which has the smaller error.
        centred: threshold on the distance from the mean, not from zero as published.
        salient_norm: norm of the scores by which columns are ranked.
        candidates: columns that may be salient.
        block_size: columns of a block, even.
        feedback: 'diagonal' as published, or 'exact'.
        official_arithmetic: compute as the official code does: reconstructions shortened by the
            rounding in its inverse Haar, and errors fed back before the coefficients are rounded
            to the 16 bits that are stored. To compare with it; it makes nothing better.
    """

    transform: Literal['row', 'col'] = 'row'
    partition: Partition = 'row'
    shared_mean: bool = True
    scale: Scale = 'rms'
    centred: bool = False
    salient_norm: Norm = 'l2'
    candidates: int = 50
    block_size: int = 128
    feedback: Feedback = 'diagonal'
    official_arithmetic: bool = False

    def __post_init__(self) -> None:
        if self.block_size < 2 or self.block_size % 2:
            raise ValueError(f'block_size={self.block_size}: use an even number of columns')
        if self.candidates < 2:
            raise ValueError(f'candidates={self.candidates}: use 2 or more')

    @property
    def base_rule(self) -> GroupRule:
        """How the groups of the non-salient part are found."""
        return GroupRule(self.shared_mean, self.scale, self.partition, self.centred)

    @property
    def salient_rule(self) -> GroupRule:
        """How the groups of the salient part are found: means of their own."""
        return GroupRule(False, self.scale, self.partition, self.centred)


PRESETS = {
    'default': HbllmOptions(),
    'row': HbllmOptions(shared_mean=False),
    'col': HbllmOptions(transform='col'),
    'global': HbllmOptions(partition='global', shared_mean=False),
}


def quantize(weight: Tensor, hessian: Tensor | None, options: HbllmOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None for
            white inputs.
        options: all fields but ``seed`` are used.
    """
    weight, factor = prepare(weight, hessian, options.damping)
    coder = _BlockCoder(options, None if options.official_arithmetic else coefficient_dtype(weight))
    _, blocks = quantize_blocks(weight, factor, options.block_size, coder, options.feedback)
    columns = weight.shape[1]
    rule, row = options.base_rule, options.transform == 'row'
    base = PartBuilder(
        columns,
        rule.products,
        hadamard=2 if row else 1,
        row_hadamard=1 if row else 2,
        bands=2 if row else 1,
    )
    salient = PartBuilder(columns, options.salient_rule.products, row_hadamard=2)
    parts = build_parts(blocks, base, salient)
    count = sum(len(block.salient_columns) for block in blocks)
    return GroupedLayer(columns, parts, 1 + count / columns)


class _BlockCoder:
    """Quantizes one block after the other."""

    def __init__(self, options: HbllmOptions, dtype: torch.dtype | None) -> None:
        self._options, self._dtype = options, dtype
        self._shrink = OFFICIAL_INVERSE if options.official_arithmetic else 1.0

    def __call__(self, block: Tensor, corner: Tensor, start: int) -> BlockResult[BlockParts]:
        options = self._options
        score = hessian_score(block, corner)
        salient = search_salient(score, options.salient_norm, options.candidates)
        code = self._code_row if options.transform == 'row' else self._code_column
        result = code(block, salient)
        parts = result.parts
        return BlockResult(
            result.quantized,
            BlockParts(
                parts.base,
                parts.base_columns + start,
                parts.salient,
                parts.salient_columns + start,
            ),
        )

    def _code_row(self, block: Tensor, salient: Tensor) -> BlockResult[BlockParts]:
        """Filled block in Haar along the columns, then the salient columns' residual."""
        bands = split_bands(haar_columns(fill_salient(block, salient)))
        base = [self._groups(band, self._options.base_rule) for band in bands]
        quantized = haar_columns(join_bands([code.levels() for code in base]))
        residual = block[:, salient] - quantized[:, salient]
        code, levels = self._code_salient(residual)
        quantized[:, salient] += levels
        everything = torch.arange(block.shape[1], device=block.device)
        return BlockResult(quantized, BlockParts(base, everything, code, salient))

    def _code_column(self, block: Tensor, salient: Tensor) -> BlockResult[BlockParts]:
        """Non-salient and salient columns, both in Haar along the rows."""
        others = other_columns(salient, block.shape[1])
        base = self._groups(haar_rows(block[:, others]), self._options.base_rule, row_bands=2)
        code, levels = self._code_salient(block[:, salient])
        quantized = torch.empty_like(block)
        quantized[:, others] = haar_rows(base.levels())
        quantized[:, salient] = levels
        return BlockResult(quantized, BlockParts([base], others, code, salient))

    def _code_salient(self, values: Tensor) -> tuple[PlaneCode | None, Tensor]:
        """Code of the salient columns (none of no columns) and what it decodes to."""
        if not values.shape[1]:
            return None, values
        code = self._groups(haar_rows(values), self._options.salient_rule, row_bands=2)
        return code, haar_rows(code.levels())

    def _groups(self, values: Tensor, rule: GroupRule, row_bands: int = 1) -> PlaneCode:
        return search_groups(values, rule, row_bands).scaled(self._shrink).rounded(self._dtype)
