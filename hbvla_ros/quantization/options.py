# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options that the methods share."""

from __future__ import annotations

from dataclasses import dataclass

from hbvla_ros.errors import HbvlaError

_SEEDS = 2**63


@dataclass(frozen=True)
class MethodOptions:
    """What a method is asked for; every field stands in the manifest.

    Attributes:
        planes: number of sign planes, 1 to 3.
        hadamard: largest Hadamard block, a power of two; 1 means none.
        balance: scale the columns before the transform.
        random_signs: flip columns at random before the transform (kept in the column scale).
        rounds: rounds of row scale and sign refinement after the error feedback.
        column_refits: least-squares refits of the column scale, each with two more such rounds.
        damping: added to the diagonal of the Hessian, as a share of its mean.
        seed: seed of the random signs.
    """

    planes: int = 1
    hadamard: int = 128
    balance: bool = True
    random_signs: bool = False
    rounds: int = 6
    column_refits: int = 2
    damping: float = 0.01
    seed: int = 0


def check_seed(seed: int) -> None:
    """Refuse a seed that one of the random generators would not take.

    Raises:
        HbvlaError: negative, or beyond 63 bits.
    """
    if not 0 <= seed < _SEEDS:
        raise HbvlaError(f'seed {seed}: must be 0 to 2^63 - 1')
