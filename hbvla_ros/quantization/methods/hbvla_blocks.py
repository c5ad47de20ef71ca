# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One block of columns of ``hbvla``: salient choice, fill or drop, permutation, codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.quantization.binary.blocks import BlockResult
from hbvla_ros.quantization.binary.code import PlaneCode
from hbvla_ros.quantization.binary.grouping import search_groups
from hbvla_ros.quantization.binary.haar import haar_columns, haar_rows, join_bands, split_bands
from hbvla_ros.quantization.binary.parts import BlockParts
from hbvla_ros.quantization.binary.permutation import haar_order
from hbvla_ros.quantization.binary.refine import block_metric, refine_codes
from hbvla_ros.quantization.binary.residual import residual_code
from hbvla_ros.quantization.binary.saliency import (
    fill_salient,
    other_columns,
    rank_columns,
    search_salient,
)
from hbvla_ros.quantization.binary.salient_count import (
    COUNTS,
    best_salient,
    joint_error,
    salient_counts,
    weighted_error,
)
from hbvla_ros.quantization.methods.hbvla_options import HbvlaOptions

_INT8 = 127


@dataclass(frozen=True)
class HbvlaBlockParts(BlockParts):
    """What is stored of one block, with the panel; ``base`` is Haar coefficients of paired columns.

    The salient code is that of Haar along the rows ('planes': of the columns as they are).

    Attributes:
        panel: int8 (rows, c) of the salient columns, or None.
        panel_scales: bfloat16 (c,), or None.
    """

    panel: Tensor | None
    panel_scales: Tensor | None


class BlockCoder:
    """Quantizes one block after the other, for ``binary.blocks.quantize_blocks``."""

    def __init__(
        self,
        options: HbvlaOptions,
        weight: Tensor,
        order: Tensor,
        saliency_factor: Tensor | None,
        factor: Tensor | None,
        dtype: torch.dtype,
    ) -> None:
        """Coder of one layer whose columns are already in the order of the blocks.

        Args:
            options: all fields.
            weight: float32 (rows, columns), before any feedback.
            order: int64 (columns,), the layer's own number of each column.
            saliency_factor: U of the inverse Hessian for the saliency, None for white inputs.
            factor: the same for the feedback.
            dtype: 16-bit dtype of the coefficients.
        """
        self._options, self._weight, self._order, self._dtype = options, weight, order, dtype
        self._factor = factor
        self._saliency_factor = saliency_factor
        self._denominator = _denominator(saliency_factor, weight, options)

    def __call__(self, block: Tensor, _corner: Tensor, start: int) -> BlockResult[HbvlaBlockParts]:
        """Quantize the columns from ``start`` on, as compensated by now."""
        options, columns = self._options, block.shape[1]
        span = slice(start, start + columns)
        score = (block / self._denominator[span]).square()
        ranking = rank_columns(score, options.salient_norm)
        if options.salient_search == 'error':
            return self._search_by_error(block, ranking, span)
        if options.salient_search == 'score':
            count = len(search_salient(score, options.salient_norm, options.candidates))
        else:
            count = options.candidates if options.salient_search == 'all' else 0
        allowed = self._counts([count], span)
        return self._code(block, ranking[: allowed[-1]], span)

    def _counts(self, wanted: Sequence[int], span: slice) -> list[int]:
        """Numbers of salient columns that a block can have, nearest to the wanted ones, rising."""
        options, columns = self._options, span.stop - span.start
        last = span.stop == self._weight.shape[1]
        # Parts of a layer are never all empty: the panel is an addition to one.
        most = columns - 1 if last and options.salient_code == 'int8' else columns
        pairs = options.nonsalient == 'drop' and not last
        return salient_counts(wanted, columns, min(most, options.candidates), pairs)

    def _search_by_error(
        self, block: Tensor, ranking: Tensor, span: slice
    ) -> BlockResult[HbvlaBlockParts]:
        """Code with each number of salient columns and keep the best."""
        factor = _corner(self._saliency_factor, span, block)
        measure = joint_error if self._options.feedback == 'exact' else weighted_error

        def trial(salient: Tensor) -> tuple[float, BlockResult[HbvlaBlockParts]]:
            result = self._code(block, salient, span)
            return measure(block - result.quantized, factor), result

        return best_salient(ranking, self._counts(COUNTS, span), trial)

    def _code(self, block: Tensor, salient: Tensor, span: slice) -> BlockResult[HbvlaBlockParts]:
        """Code the block with the given salient columns."""
        fill = self._options.nonsalient == 'fill'
        if fill:
            base = fill_salient(block, salient)
            used = torch.arange(block.shape[1], device=block.device)
        else:
            base = block
            used = other_columns(salient, block.shape[1])
        quantized = torch.zeros_like(block)
        codes: list[PlaneCode] = []
        if len(used):
            used = used[self._pairing(base[:, used], used, span)]
            codes = self._code_base(base[:, used], used, span)
            quantized[:, used] = haar_columns(join_bands([code.levels() for code in codes]))
        residual = block[:, salient] - quantized[:, salient]
        code, panel, scales, levels = self._code_salient(residual)
        quantized[:, salient] += levels
        columns = self._order[span]
        parts = HbvlaBlockParts(codes, columns[used], code, columns[salient], panel, scales)
        return BlockResult(quantized, parts)

    def _pairing(self, base: Tensor, used: Tensor, span: slice) -> Tensor:
        """Order of the columns of a block that makes the Haar pairs."""
        options = self._options
        if options.perm != 'block':
            return torch.arange(base.shape[1], device=base.device)
        if options.perm_source == 'original':
            base = self._weight[:, span][:, used]
        return haar_order(base, options.norm, options.chaining)

    def _code_base(self, base: Tensor, used: Tensor, span: slice) -> list[PlaneCode]:
        """Codes of the bands of paired columns."""
        target = haar_columns(base)
        codes = [
            search_groups(band, self._options.base_rule).rounded(self._dtype)
            for band in split_bands(target)
        ]
        if not self._options.refits:
            return codes
        metric = block_metric(_corner(self._factor, span, base))[used][:, used]
        return refine_codes(target, metric, codes, self._options.refits, self._dtype)

    def _code_salient(
        self, values: Tensor
    ) -> tuple[PlaneCode | None, Tensor | None, Tensor | None, Tensor]:
        """Code, panel and its scales of the salient columns, and what they decode to."""
        if not values.shape[1]:
            return None, None, None, values
        if self._options.salient_code == 'int8':
            panel, scales = _int8_columns(values)
            return None, panel, scales, panel.float() * scales.float()
        if self._options.salient_code == 'planes':
            code = residual_code(values).rounded(self._dtype)
            return code, None, None, code.levels()
        code = search_groups(haar_rows(values), self._options.salient_rule).rounded(self._dtype)
        return code, None, None, haar_rows(code.levels())


def _int8_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    """Columns as int8 (rows, c) with bfloat16 scales (c,); bfloat16 has no range to leave."""
    scales = (values.abs().amax(dim=0) / _INT8).bfloat16()
    safe = scales.float().clamp_min(torch.finfo(torch.float32).tiny)
    return (values / safe).round().clamp(-_INT8, _INT8).to(torch.int8), scales


def _corner(factor: Tensor | None, span: slice, block: Tensor) -> Tensor:
    """A block's slice of U; the identity without one."""
    if factor is None:
        return torch.eye(span.stop - span.start, device=block.device)
    return factor[span, span]


def _denominator(factor: Tensor | None, weight: Tensor, options: HbvlaOptions) -> Tensor:
    """What weights are divided by before they are squared to scores, (columns,)."""
    if factor is None:
        return torch.ones(weight.shape[1], device=weight.device)
    if options.saliency == 'conditional':
        return factor.diagonal()
    return factor.square().sum(dim=0)  # the diagonal of U^T U, the inverse Hessian
