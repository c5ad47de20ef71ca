# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``signplane``: sign planes on a balanced block Hadamard domain (spec section 5).

The weight is written as ``W = W' T`` with the column transform ``T = Hadamard diag(b)``; the signs
are chosen for W' under ``H' = T^-T H T^-1`` by column-wise error feedback, then improved in
cycles: a least-squares refit of b, then a sweep over the signs, in which panels of columns are
annealed one after the other, and a least-squares fit of the row scales.
Without a Hessian the inputs are taken as white: H is the identity, so H' is block-diagonal, one
block for each Hadamard block, and every step runs block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.sign_planes import MOST_PLANES, ROW_TILE, SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer, store_index
from hbvla_ros.quantization.binary.permutation import haar_order
from hbvla_ros.quantization.column_basis import (
    ColumnBasis,
    StoredScale,
    balance,
    principal_signs,
)
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.sign_groups import (
    Group,
    Problem,
    move_groups,
    refit_columns,
    start_groups,
)
from hbvla_ros.quantization.sign_search import Kicks
from hbvla_ros.quantization.signs import initial_scales
from hbvla_ros.quantization.tiles import planes_of_tiles, tile_rows

_SAMPLED_ROWS = 256


def quantize(weight: Tensor, hessian: Tensor | None, options: SignPlaneOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Inputs that never moved during calibration (zero on the diagonal of the Hessian) say nothing
    about their weights, which are taken as zero.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None.
        options: all fields are used.
    """
    weight, hessian, order = _permuted(weight, hessian, options)
    problem = Problem.of(weight, hessian, options.damping)
    scale = _initial_column_scale(problem.weight, problem.metric, options)
    basis = ColumnBasis(None if scale is None else scale.values, options.block)
    planes = tile_planes_for(basis.inner(problem.weight), options)
    groups = start_groups(problem, basis, _row_counts(planes, weight))
    generator = torch.Generator(weight.device).manual_seed(options.seed)
    kicks = Kicks(options.kicks, options.kick, generator)
    for group in groups:
        group.search.improve(options.rounds, kicks)
    for _ in range(options.cycles):
        if scale is not None:
            fitted = refit_columns(problem, basis, groups)
            scale = StoredScale.of(fitted, options.scale_bits)
            basis = ColumnBasis(scale.values, options.block)
            move_groups(problem, basis, groups)
        for group in groups:
            group.search.improve(options.sweeps, kicks)
    return _layer(groups, scale, order, planes, options)


def estimate_tile_errors(
    weight: Tensor, hessian: Tensor | None, options: SignPlaneOptions
) -> Tensor:
    """About the error that each tile of rows has with 1, 2 and 3 planes.

    Rows share the Hessian, so that their errors after the feedback go by the squares of their
    scales, within a tenth; how much of a square is left is measured on some of them.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), or None.
        options: as for :func:`quantize`.

    Returns:
        float64 (3, tiles), parts of ``tr(E H E^T)``.
    """
    weight, hessian, _ = _permuted(weight, hessian, options)
    sample = weight[:: max(1, len(weight) // _SAMPLED_ROWS)].repeat(MOST_PLANES, 1)
    problem = Problem.of(sample, hessian, options.damping)
    scale = _initial_column_scale(weight, problem.metric, options)
    basis = ColumnBasis(None if scale is None else scale.values, options.block)
    squares = initial_scales(basis.inner(weight), 1)[0].square().double()
    sampled = initial_scales(basis.inner(sample), 1)[0].square().double()
    counts = torch.arange(1, MOST_PLANES + 1, device=weight.device)
    groups = start_groups(problem, basis, counts.repeat_interleave(len(sample) // MOST_PLANES))
    left = []
    for group in groups:
        error = sample[group.rows] - basis.outer(group.search.levels().T)
        curved = error if hessian is None else error @ hessian
        left.append((curved * error).sum(dtype=torch.float64) / sampled[group.rows].sum())
    tiles = torch.stack([part.sum() for part in squares.split(ROW_TILE)])
    return torch.nan_to_num(torch.stack(left))[:, None] * tiles


def tile_planes_for(inner: Tensor, options: SignPlaneOptions) -> list[int]:
    """Planes of each tile of rows, as the options ask.

    Args:
        inner: (rows, columns), the weight behind the column transform.
        options: of them ``tile_planes``, ``stored_bits``, ``planes``.

    Raises:
        HbvlaError: ``tile_planes`` do not fit the rows, or the budget is too small.
    """
    rows, columns = inner.shape
    heights = tile_rows(rows)
    if options.tile_planes is not None:
        given = options.tile_planes
        if len(given) != len(heights):
            raise HbvlaError(f'tile_planes {given}: {rows} rows take {len(heights)} digits')
        return [int(digit) for digit in given]
    if options.stored_bits is None:
        return [options.planes] * len(heights)
    budget = int(options.stored_bits * rows * columns / 8) - options.overhead_bytes(columns)
    energies = [float(part.sum()) for part in initial_scales(inner, 1)[0].square().split(ROW_TILE)]
    planes = planes_of_tiles(rows, columns, budget, energies, options.scale_bits // 8)
    if planes is None:
        raise HbvlaError(
            f'stored_bits {options.stored_bits:g}: too few for one sign plane of {rows} x {columns}'
        )
    return planes


def _permuted(
    weight: Tensor, hessian: Tensor | None, options: SignPlaneOptions
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weight without dead inputs and Hessian, in the order of the columns that is the third.

    Columns are paired as HBVLA pairs them, but after their balance.
    """
    if hessian is not None:
        weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
    if options.transform != 'permuted_haar':
        return weight, hessian, None
    order = haar_order(weight / balance(weight) if options.balance else weight)
    if hessian is not None:
        hessian = hessian[order][:, order]
    return weight[:, order], hessian, order


def _row_counts(planes: Sequence[int], weight: Tensor) -> Tensor:
    """int64 (rows,): planes of each row."""
    counts = torch.tensor(planes, device=weight.device)
    return counts.repeat_interleave(ROW_TILE)[: len(weight)]


def _initial_column_scale(
    weight: Tensor, metric: Tensor | None, options: SignPlaneOptions
) -> StoredScale | None:
    """Column scale b as stored, or None when neither balance nor signs are asked for."""
    if not options.balance and options.column_signs == 'none':
        return None
    scale = balance(weight) if options.balance else weight.new_ones(weight.shape[1])
    if options.column_signs == 'random':
        generator = torch.Generator().manual_seed(options.seed)
        flips = torch.randint(0, 2, scale.shape, generator=generator) * 2 - 1
        scale = scale * flips.to(scale)
    elif options.column_signs == 'principal' and metric is not None:
        scale = scale * principal_signs(metric)
    return StoredScale.of(scale, options.scale_bits)


def _layer(
    groups: list[Group],
    scale: StoredScale | None,
    order: Tensor | None,
    planes: list[int],
    options: SignPlaneOptions,
) -> SignPlaneLayer:
    """The layer; row scales are rounded together before a last sweep chooses signs for them."""
    search = groups[0].search
    most, columns = max(planes), search.signs.shape[1]
    rows = sum(len(group.rows) for group in groups)
    values = search.scales.new_zeros(most, rows)
    for group in groups:
        values[: len(group.search.scales), group.rows] = group.search.scales
    row_scales = StoredScale.of(values, options.scale_bits)
    signs = search.signs.new_ones(most, rows, columns)
    for group in groups:
        count = len(group.search.scales)
        group.search.scales = row_scales.values[:count, group.rows]
        if options.rounds:
            group.search.sweep()
        signs[:count, group.rows] = group.search.signs.transpose(1, 2)
    tiles = torch.tensor(planes, dtype=torch.uint8, device=signs.device)
    make = (
        SignPlaneLayer.uniform
        if len(set(planes)) == 1
        else partial(SignPlaneLayer.tiled, tile_planes=tiles)
    )
    return make(
        columns,
        pack_signs(signs),
        row_scales.codes,
        hadamard=options.block,
        column_scale=None if scale is None else scale.codes,
        permutation=None if order is None else store_index(order, columns),
        row_scales_span=row_scales.span,
        column_scale_span=None if scale is None else scale.span,
    )
