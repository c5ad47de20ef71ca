# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``billm``: salient columns of order 2, the others in two groups by magnitude (BiLLM; spec 3.2).

In blocks of 128 columns, each error fed back to the columns that follow. All choices (salient
columns, and one threshold between dense and sparse for the whole block) are made on the matrix of
scores, then applied to the weights.
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
from hbvla_ros.quantization.binary.grouping import (
    OWN_MEAN_PRODUCTS,
    GroupRule,
    best_shared_threshold,
    code_groups,
    quantiles,
)
from hbvla_ros.quantization.binary.parts import BlockParts, PartBuilder, build_parts
from hbvla_ros.quantization.binary.residual import residual_code
from hbvla_ros.quantization.binary.saliency import (
    Norm,
    hessian_score,
    other_columns,
    search_salient,
)
from hbvla_ros.quantization.options import MethodOptions

_THRESHOLDS = 81
_RULE = GroupRule(shared_mean=False, scale='mean_abs', partition='global')
_SALIENT_PRODUCTS = (0, 1, 2)


@dataclass(frozen=True)
class BillmOptions(MethodOptions):
    """Options of ``billm``.

    Attributes:
        salient_metric: scores are squared weights over the inverse Hessian ('hessian'), or the
            weights themselves ('magnitude').
        salient_norm: norm of the scores by which columns are ranked.
        candidates: columns that may be salient.
        block_size: columns of a block.
        feedback: 'diagonal' as published, or 'exact'.
    """

    salient_metric: Literal['hessian', 'magnitude'] = 'hessian'
    salient_norm: Norm = 'l1'
    candidates: int = 50
    block_size: int = 128
    feedback: Feedback = 'diagonal'

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f'block_size={self.block_size}: use 1 or more')
        if self.candidates < 2:
            raise ValueError(f'candidates={self.candidates}: use 2 or more')


PRESETS = {'default': BillmOptions()}


def quantize(weight: Tensor, hessian: Tensor | None, options: BillmOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None for
            white inputs.
        options: all fields but ``seed`` are used.
    """
    weight, factor = prepare(weight, hessian, options.damping)
    dtype = coefficient_dtype(weight)

    def quantize_block(block: Tensor, corner: Tensor, start: int) -> BlockResult[BlockParts]:
        return _quantize_block(block, corner, start, options, dtype)

    _, blocks = quantize_blocks(
        weight, factor, options.block_size, quantize_block, options.feedback
    )
    columns = weight.shape[1]
    # Two parts, since salient columns need no bitmap and one coefficient less.
    base = PartBuilder(columns, OWN_MEAN_PRODUCTS)
    salient = PartBuilder(columns, _SALIENT_PRODUCTS)
    parts = build_parts(blocks, base, salient)
    count = sum(len(block.salient_columns) for block in blocks)
    return GroupedLayer(columns, parts, 1 + count / columns)


def _quantize_block(
    block: Tensor, corner: Tensor, start: int, options: BillmOptions, dtype: torch.dtype
) -> BlockResult[BlockParts]:
    """Choose on the scores, code the weights."""
    score = hessian_score(block, corner) if options.salient_metric == 'hessian' else block
    salient = search_salient(score, options.salient_norm, options.candidates)
    others = other_columns(salient, block.shape[1])
    threshold = _score_threshold(score, salient, others)
    sparse = score[:, others].abs() >= threshold
    base = code_groups(block[:, others], sparse, False, 'mean_abs').rounded(dtype)
    quantized = torch.empty_like(block)
    quantized[:, others] = base.levels()
    code = None
    if len(salient):
        code = residual_code(block[:, salient]).rounded(dtype)
        quantized[:, salient] = code.levels()
    return BlockResult(quantized, BlockParts([base], others + start, code, salient + start))


def _score_threshold(score: Tensor, salient: Tensor, others: Tensor) -> Tensor:
    """Threshold (1, 1) on the scores between dense and sparse.

    The quantiles are of the whole block, its salient columns counted as zeros.
    """
    population = score.abs().index_fill(1, salient, 0.0)
    grid = quantiles(population.reshape(1, -1), _THRESHOLDS)
    return best_shared_threshold(score[:, others], grid, _RULE)
