# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options of ``signplane`` and the bytes that a layer takes with them (spec section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from hbvla_ros.packed.forms.sign_planes import MOST_PLANES
from hbvla_ros.packed.layer import store_index
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.tiles import layer_bytes

_SPAN_BYTES = 8
_TRANSFORM_BLOCKS = {'haar': 2, 'permuted_haar': 2, 'none': 1}


@dataclass(frozen=True)
class SignPlaneOptions(MethodOptions):
    """Options of ``signplane``.

    Attributes:
        planes: number of sign planes, 1 to 3.
        transform: what the columns go through before the signs: block Hadamard, one level of
            Haar, the same with columns paired by likeness (better than it only without column
            scales: like columns leave transformed ones of unequal size), or nothing.
        hadamard: largest Hadamard block, a power of two.
        balance: scale the columns before the transform.
        column_signs: flip columns before the transform (kept in the column scale): by the
            inputs' main common motion, at random, or not at all.
        rounds: sweeps over the signs after the error feedback.
        cycles: further improvements, each with a refit of the column scale.
        sweeps: sweeps over the signs in each cycle.
        kicks: passes with random numbers over each panel of columns in a sweep.
        kick: deviation of the random numbers in the first pass, in units of the smallest row
            scale; it fades over the passes.
        scale_bits: 8 or 16 bits a scale.
        stored_bits: budget of stored bits a weight of this layer, which tiles of 128 rows share
            by their error; takes the place of ``planes``.
        tile_planes: planes of each tile of 128 rows as digits, such as '2112'; takes the place of
            both.
    """

    damping: float = 0.1
    planes: int = 1
    transform: Literal['hadamard', 'haar', 'permuted_haar', 'none'] = 'hadamard'
    hadamard: int = 128
    balance: bool = True
    column_signs: Literal['principal', 'random', 'none'] = 'principal'
    rounds: int = 1
    cycles: int = 4
    sweeps: int = 2
    kicks: int = 4
    kick: float = 0.2
    scale_bits: Literal[8, 16] = 8
    stored_bits: float | None = None
    tile_planes: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no layer can have."""
        if not 1 <= self.planes <= MOST_PLANES:
            raise ValueError(f'planes must be 1 to {MOST_PLANES}, got {self.planes}')
        if self.hadamard < 1 or self.hadamard & (self.hadamard - 1):
            raise ValueError(f'hadamard must be a power of two, got {self.hadamard}')
        if self.tile_planes is not None and set(self.tile_planes) - set('123'):
            raise ValueError(f'tile_planes must be digits of 1 to 3, got {self.tile_planes}')

    @property
    def block(self) -> int:
        """Largest block of the column transform."""
        return _TRANSFORM_BLOCKS.get(self.transform, self.hadamard)

    def overhead_bytes(self, columns: int) -> int:
        """Bytes of a layer that do not depend on its planes: transform and spans."""
        total = _SPAN_BYTES if self.scale_bits == 8 else 0
        if self.transform == 'permuted_haar':
            total += columns * store_index(torch.zeros(0), columns).element_size()
        if self.balance or self.column_signs != 'none':
            total += columns * self.scale_bits // 8 + (_SPAN_BYTES if self.scale_bits == 8 else 0)
        return total

    def stored_bytes(self, rows: int, columns: int, planes: Sequence[int]) -> int:
        """Bytes of a layer with so many planes in each of its tiles."""
        return self.overhead_bytes(columns) + layer_bytes(
            rows, columns, planes, self.scale_bits // 8
        )


PRESETS = {
    'default': SignPlaneOptions(),
    # For wide layers on a processor without a GPU: less than half the work, 4 % more error.
    'fast': SignPlaneOptions(rounds=2, cycles=1),
    # For small networks: five times the work, 3 % less error.
    'best': SignPlaneOptions(cycles=12, kicks=8),
}
