# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla``: policy-aware Haar binarization (HBVLA, arXiv 2602.13710; spec section 1).

In blocks of 128 columns, each error fed back to the columns that follow. Salient columns are chosen
by a Hessian whose tokens are weighted by their influence, and filled with the mean of their
neighbours (or left out); the columns of the block are paired by similarity (Algorithm 1) and Haar
transformed; each row of each band gets a dense and a sparse group of two levels. What the salient
columns then lack is coded in Haar along the rows. No public code of the method exists: what its
text leaves open is an option each, see ``hbvla_options``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.layer import QuantizedLayer, store_index
from hbvla_ros.quantization.binary.blocks import coefficient_dtype, prepare, quantize_blocks
from hbvla_ros.quantization.binary.parts import PartBuilder, build_parts
from hbvla_ros.quantization.binary.permutation import haar_order, sort_by_norm
from hbvla_ros.quantization.methods.hbvla_blocks import BlockCoder, HbvlaBlockParts
from hbvla_ros.quantization.methods.hbvla_options import HbvlaOptions

_RESIDUAL_PRODUCTS = (0, 1, 2)


def quantize(
    weight: Tensor,
    hessian: Tensor | None,
    options: HbvlaOptions,
    *,
    saliency_hessian: Tensor | None = None,
) -> QuantizedLayer:
    """Quantize one weight matrix.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None for
            white inputs.
        options: all fields but ``seed`` are used.
        saliency_hessian: the same of weighted tokens (H~ of the paper), for the saliency and, with
            ``rectified_feedback``, for the feedback; None: as ``hessian``.
    """
    if saliency_hessian is None:
        saliency_hessian = hessian
    if options.rectified_feedback:
        hessian = saliency_hessian
    if hessian is not None:  # before the order is made: dead inputs must not lead it
        weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
    order = column_order(weight, options)
    weight, factor = prepare(weight[:, order], _reordered(hessian, order), options.damping)
    saliency_factor = factor
    if saliency_hessian is not hessian:
        _, saliency_factor = prepare(weight, _reordered(saliency_hessian, order), options.damping)
    coder = BlockCoder(options, weight, order, saliency_factor, factor, coefficient_dtype(weight))
    _, blocks = quantize_blocks(
        weight,
        None if options.feedback == 'none' else factor,
        options.block_size,
        coder,
        'exact' if options.feedback == 'exact' else 'diagonal',
    )
    return _store(blocks, weight.shape[1], options)


def column_order(weight: Tensor, options: HbvlaOptions) -> Tensor:
    """Order of the columns of a layer before its blocks are cut, int64 (columns,).

    Args:
        weight: float32 (rows, columns), dead inputs zeroed.
        options: ``column_sort`` and ``perm='layer'`` change the order.
    """
    order = torch.arange(weight.shape[1], device=weight.device)
    if options.column_sort:
        order = sort_by_norm(weight, options.norm)
    if options.perm == 'layer':
        order = order[haar_order(weight[:, order], options.norm, options.chaining)]
    return order


def _reordered(hessian: Tensor | None, order: Tensor) -> Tensor | None:
    return None if hessian is None else hessian[order][:, order]


def _store(blocks: list[HbvlaBlockParts], columns: int, options: HbvlaOptions) -> GroupedLayer:
    """The stored layer of all blocks."""
    haar = options.salient_code == 'haar_residual'
    base = PartBuilder(columns, options.base_rule.products, hadamard=2, bands=2)
    products = options.salient_rule.products if haar else _RESIDUAL_PRODUCTS
    salient = PartBuilder(columns, products, row_hadamard=2 if haar else 1)
    parts = build_parts(blocks, base, salient)
    count = sum(len(block.salient_columns) for block in blocks)
    panels = [block for block in blocks if block.panel is not None]
    if not panels:
        return GroupedLayer(columns, parts, 1 + count / columns)
    return GroupedLayer(
        columns,
        parts,
        1 + 7 * count / columns,
        torch.cat([block.panel for block in panels if block.panel is not None], dim=1),
        torch.cat([block.panel_scales for block in panels if block.panel_scales is not None]),
        store_index(torch.cat([block.salient_columns for block in panels]), columns),
    )
