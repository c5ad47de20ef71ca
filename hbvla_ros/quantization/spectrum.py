# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How unevenly the saliency of a layer is spread over its columns."""

from __future__ import annotations

from collections.abc import Sequence

_RANKS = 65


def saliency_spectrum(column_saliency: Sequence[float]) -> list[float]:
    """Falling quantiles of a layer's column saliency relative to its mean.

    Args:
        column_saliency: one non-negative number a column.

    Returns:
        65 values from the most to the least salient column; all zero for a layer whose inputs
        never moved.
    """
    values = sorted((float(value) for value in column_saliency), reverse=True)
    mean = sum(values) / len(values)
    if mean <= 0:
        return [0.0] * _RANKS
    ranks = [round(i * (len(values) - 1) / (_RANKS - 1)) for i in range(_RANKS)]
    return [values[rank] / mean for rank in ranks]
