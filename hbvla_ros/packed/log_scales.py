# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Scales in 8 bits: sign and logarithm, for layers too narrow to afford 16 bits a scale.

A code is one byte: bit 7 is the sign, the lower bits are 0 for an exact zero or k for
``exp(span[0] + (k - 1) * span[1])``. Over a range of 30 : 1 a step is 2.7 %, which leaves a
relative squared error of 6e-5, far below that of a sign plane.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_STEPS = 126
# Scales smaller than this share of the largest are as good as that share.
_RANGE = 1e-4


def store_log_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round scales to 8 bits.

    Args:
        values: float, any shape.

    Returns:
        uint8 codes of the same shape, and the span: float32 (2,), smallest logarithm and step.
    """
    magnitude = values.detach().abs().double()
    most = float(magnitude.max()) if values.numel() else 0.0
    if most == 0.0:
        return torch.zeros_like(values, dtype=torch.uint8), values.new_zeros(2).float()
    some = magnitude > 0
    least = max(float(magnitude[some].min()), most * _RANGE)
    low, high = math.log(least), math.log(most)
    span = torch.tensor([low, (high - low) / _STEPS], dtype=torch.float32, device=values.device)
    step = max(float(span[1]), 1e-12)
    place = ((magnitude.clamp_min(least).log() - float(span[0])) / step).round().clamp(0, _STEPS)
    codes = (place + 1).to(torch.uint8)
    codes = torch.where(some, codes, torch.zeros_like(codes))
    return codes | (values < 0).to(torch.uint8) << 7, span


def read_scale(stored: Tensor, span: Tensor | None) -> Tensor:
    """Scales as float32.

    Args:
        stored: float16 or bfloat16, or uint8 codes of :func:`store_log_scale`.
        span: float32 (2,) with codes, None without.
    """
    if span is None:
        return stored.float()
    place = (stored & 127).float()
    magnitude = torch.exp(span[0] + (place - 1) * span[1])
    magnitude = torch.where(place == 0, torch.zeros_like(magnitude), magnitude)
    return torch.where(stored > 127, -magnitude, magnitude)
