# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``signplane``: sign planes on a balanced block Hadamard domain (spec section 5).

The weight is written as ``W = W' T`` with the column transform ``T = Hadamard diag(b)``; the signs
are chosen for W' under ``H' = T^-T H T^-1`` by column-wise error feedback, then improved in
cycles: a least-squares refit of b, sweeps over the signs with a random kick that fades, sweeps
without, each with a least-squares fit of the row scales; rows that came out worse go back.
Without a Hessian the inputs are taken as white: H is the identity, so H' is block-diagonal, one
block for each Hadamard block, and every step runs block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.sign_planes import ROW_TILE, SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.column_basis import (
    ColumnBasis,
    StoredScale,
    balance,
    principal_signs,
    refit_scale,
)
from hbvla_ros.quantization.hessian import damped, error_factor
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.sign_search import SignSearch
from hbvla_ros.quantization.signs import Rounder, error_feedback, initial_scales
from hbvla_ros.quantization.tiles import (
    MOST_PLANES,
    layer_bytes,
    planes_of_tiles,
    tile_rows,
)

_SPAN_BYTES = 8
_TRANSFORM_BLOCKS = {'haar': 2, 'none': 1}


@dataclass(frozen=True)
class SignPlaneOptions(MethodOptions):
    """Options of ``signplane``.

    Attributes:
        planes: number of sign planes, 1 to 3.
        transform: what the columns go through before the signs: block Hadamard, one level of
            Haar, or nothing.
        hadamard: largest Hadamard block, a power of two.
        balance: scale the columns before the transform.
        column_signs: flip columns before the transform (kept in the column scale): by the
            inputs' main common motion, at random, or not at all.
        rounds: sweeps over the signs after the error feedback.
        cycles: further improvements, each with a refit of the column scale.
        kicks: sweeps with random numbers in each cycle.
        kick: deviation of the random numbers of the first of them, in units of the smallest row
            scale; it falls to zero.
        sweeps: sweeps without in each cycle.
        scale_bits: 8 or 16 bits a scale.
        stored_bits: budget of stored bits a weight of this layer, which tiles of 128 rows share
            by their error; takes the place of ``planes``.
        tile_planes: planes of each tile of 128 rows; takes the place of both.
    """

    damping: float = 0.1
    planes: int = 1
    transform: Literal['hadamard', 'haar', 'none'] = 'hadamard'
    hadamard: int = 128
    balance: bool = True
    column_signs: Literal['principal', 'random', 'none'] = 'principal'
    rounds: int = 2
    cycles: int = 8
    kicks: int = 4
    kick: float = 0.2
    sweeps: int = 2
    scale_bits: Literal[8, 16] = 8
    stored_bits: float | None = None
    tile_planes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what no layer can have."""
        if not 1 <= self.planes <= MOST_PLANES:
            raise ValueError(f'planes must be 1 to {MOST_PLANES}, got {self.planes}')
        if self.hadamard < 1 or self.hadamard & (self.hadamard - 1):
            raise ValueError(f'hadamard must be a power of two, got {self.hadamard}')

    @property
    def block(self) -> int:
        """Largest block of the column transform."""
        return _TRANSFORM_BLOCKS.get(self.transform, self.hadamard)

    def overhead_bytes(self, columns: int) -> int:
        """Bytes of a layer that do not depend on its planes: column scale and spans."""
        total = _SPAN_BYTES if self.scale_bits == 8 else 0
        if self.balance or self.column_signs != 'none':
            total += columns * self.scale_bits // 8 + (_SPAN_BYTES if self.scale_bits == 8 else 0)
        return total

    def stored_bytes(self, rows: int, columns: int, planes: Sequence[int]) -> int:
        """Bytes of a layer with so many planes in each of its tiles."""
        return self.overhead_bytes(columns) + layer_bytes(
            rows, columns, planes, self.scale_bits // 8
        )


@dataclass
class _Problem:
    """A layer: what stays the same while signs and scales change.

    Attributes:
        weight: float32 (rows, columns), zero where the inputs never moved.
        metric: damped Hessian, or None for the identity.
        pulled: weight @ metric.
        energy: float64 (rows,), error of all zeros.
    """

    weight: Tensor
    metric: Tensor | None
    pulled: Tensor
    energy: Tensor

    @staticmethod
    def of(weight: Tensor, hessian: Tensor | None, damping: float) -> _Problem:
        """Take a layer; inputs that never moved say nothing about their weights."""
        metric = None
        if hessian is not None:
            weight = weight.masked_fill(hessian.diagonal() <= 0, 0.0)
            metric = damped(hessian, damping)
        pulled = weight if metric is None else weight @ metric
        return _Problem(weight, metric, pulled, (pulled * weight).sum(dim=1, dtype=torch.float64))

    def blocks(self, basis: ColumnBasis) -> list[Tensor]:
        """The Hessian in a basis, as diagonal blocks."""
        if self.metric is None:
            return basis.white_blocks(self.weight.shape[1], self.weight)
        return basis.blocks(self.metric)


def quantize(weight: Tensor, hessian: Tensor | None, options: SignPlaneOptions) -> QuantizedLayer:
    """Quantize one weight matrix.

    Inputs that never moved during calibration (zero on the diagonal of the Hessian) say nothing
    about their weights, which are taken as zero.

    Args:
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), mean of x x^T over calibration tokens, or None.
        options: all fields are used.
    """
    problem = _Problem.of(weight, hessian, options.damping)
    scale = _initial_column_scale(problem, options)
    basis = ColumnBasis(None if scale is None else scale.values, options.block)
    planes = tile_planes_for(basis.inner(problem.weight), options)
    counts = torch.tensor(planes, device=weight.device).repeat_interleave(ROW_TILE)[: len(weight)]
    groups = _start(problem, basis, counts)
    generator = torch.Generator(weight.device).manual_seed(options.seed)
    for _ in range(options.rounds):
        _improve(groups)
    for _ in range(options.cycles):
        if scale is not None:
            scale = _refit_column_scale(problem, basis, groups, options)
            basis = ColumnBasis(scale.values, options.block)
            _move(problem, basis, groups)
        _kick(groups, options, generator)
    return _layer(groups, scale, planes, options, len(weight))


@dataclass
class _Group:
    """Rows with the same number of planes."""

    rows: Tensor
    search: SignSearch


def tile_planes_for(inner: Tensor, options: SignPlaneOptions) -> list[int]:
    """Planes of each tile of rows, as the options ask.

    Args:
        inner: (rows, columns), the weight behind the column transform.
        options: of them ``tile_planes``, ``stored_bits``, ``planes``.

    Raises:
        ValueError: ``tile_planes`` do not fit the rows, or the budget is too small.
    """
    rows, columns = inner.shape
    heights = tile_rows(rows)
    if options.tile_planes is not None:
        given = list(options.tile_planes)
        if len(given) != len(heights) or not all(1 <= n <= MOST_PLANES for n in given):
            raise ValueError(f'tile_planes {given}: need {len(heights)} numbers of 1 to 3')
        return given
    if options.stored_bits is None:
        return [options.planes] * len(heights)
    budget = int(options.stored_bits * rows * columns / 8) - options.overhead_bytes(columns)
    energies = [float(part.sum()) for part in initial_scales(inner, 1)[0].square().split(ROW_TILE)]
    planes = planes_of_tiles(rows, columns, budget, energies, options.scale_bits // 8)
    if planes is None:
        raise ValueError(f'stored_bits {options.stored_bits:g}: too few for one sign plane')
    return planes


def _initial_column_scale(problem: _Problem, options: SignPlaneOptions) -> StoredScale | None:
    """Column scale b as stored, or None when neither balance nor signs are asked for."""
    if not options.balance and options.column_signs == 'none':
        return None
    weight = problem.weight
    scale = balance(weight) if options.balance else weight.new_ones(weight.shape[1])
    if options.column_signs == 'random':
        generator = torch.Generator().manual_seed(options.seed)
        flips = torch.randint(0, 2, scale.shape, generator=generator) * 2 - 1
        scale = scale * flips.to(scale)
    elif options.column_signs == 'principal' and problem.metric is not None:
        scale = scale * principal_signs(problem.metric)
    return StoredScale.of(scale, options.scale_bits)


def _start(problem: _Problem, basis: ColumnBasis, counts: Tensor) -> list[_Group]:
    """Signs by error feedback, for the rows of each number of planes."""
    blocks = problem.blocks(basis)
    inner = basis.inner(problem.weight).T.contiguous()
    factors = [error_factor(block) for block in blocks]
    groups = []
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero().flatten()
        part = inner[:, rows]
        scales = initial_scales(part.T, count)
        levels, start = [], 0
        for factor in factors:
            stop = start + factor.shape[0] * factor.shape[1]
            stack = part[start:stop].unflatten(0, factor.shape[:2])
            levels.append(error_feedback(stack, factor, scales).flatten(0, 1))
            start = stop
        signs = Rounder(scales).signs(torch.cat(levels))
        groups.append(_Group(rows, SignSearch(signs, scales, problem.energy[rows])))
    _move(problem, basis, groups, blocks)
    return groups


def _move(
    problem: _Problem,
    basis: ColumnBasis,
    groups: list[_Group],
    blocks: list[Tensor] | None = None,
) -> None:
    """Take all groups to a basis and fit their row scales there."""
    blocks = problem.blocks(basis) if blocks is None else blocks
    for group in groups:
        group.search.move(basis.target(problem.pulled[group.rows]), blocks)
        group.search.fit_scales()


def _improve(groups: list[_Group]) -> None:
    """One sweep over the signs, then the row scales."""
    for group in groups:
        group.search.sweep()
        group.search.fit_scales()


def _kick(groups: list[_Group], options: SignPlaneOptions, generator: torch.Generator) -> None:
    """Leave the present minimum by random numbers that fade, and keep what got better."""
    for group in groups:
        search = group.search
        search.keep()
        for number in range(options.kicks):
            search.sweep(options.kick * (1 - number / options.kicks), generator)
            search.fit_scales()
        for _ in range(options.sweeps):
            search.sweep()
            search.fit_scales()
        search.restore_worse()


def _refit_column_scale(
    problem: _Problem, basis: ColumnBasis, groups: list[_Group], options: SignPlaneOptions
) -> StoredScale:
    """Column scale with the least error for fixed signs and row scales, as stored."""
    assert basis.scale is not None
    levels = torch.empty_like(problem.weight)
    for group in groups:
        levels[group.rows] = group.search.levels().T
    scale = refit_scale(
        ColumnBasis(None, basis.hadamard).outer(levels),
        problem.weight,
        problem.metric,
        problem.pulled,
        basis.scale,
    )
    return StoredScale.of(scale, options.scale_bits)


def _layer(
    groups: list[_Group],
    scale: StoredScale | None,
    planes: list[int],
    options: SignPlaneOptions,
    rows: int,
) -> SignPlaneLayer:
    """The layer; row scales are rounded together before a last sweep chooses signs for them."""
    search = groups[0].search
    most, columns = max(planes), search.signs.shape[1]
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
        row_scales_span=row_scales.span,
        column_scale_span=None if scale is None else scale.span,
    )
