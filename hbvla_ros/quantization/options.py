# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options that the methods share."""

from __future__ import annotations

from dataclasses import dataclass


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
