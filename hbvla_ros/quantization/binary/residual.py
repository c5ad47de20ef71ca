# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Binarization of order 1 and 2: mean and scale, then the same of what is left (spec 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from hbvla_ros.quantization.binary.code import PlaneCode


def residual_code(values: Tensor, order: int = 2) -> PlaneCode:
    """Binarize each row with its mean and mean-abs scale, and again what is left.

    Args:
        values: float32 (rows, n), n >= 1.
        order: number of sign planes.

    Returns:
        One plane for each order; the means of the orders add up to one.
    """
    left = values
    mean = torch.zeros_like(values[:, 0])
    scales, planes = [], []
    for _ in range(order):
        step = left.mean(dim=1)
        left = left - step[:, None]
        scale = left.abs().mean(dim=1)
        signs = (left >= 0).to(torch.int8) * 2 - 1
        left = left - scale[:, None] * signs
        mean = mean + step
        scales.append(scale)
        planes.append(signs)
    products = (0, *(1 << plane for plane in range(order)))
    return PlaneCode(torch.stack(planes), torch.stack([mean, *scales]), products)


def order2_error(values: Tensor) -> Tensor:
    """Squared error of the order 2 binarization of each column, for searches.

    Args:
        values: float32 (n, rows), one row of a matrix a column.

    Returns:
        float32 (rows,).
    """
    left = values - values.mean(dim=0)
    left = left - left.sign() * left.abs().mean(dim=0)
    left = (left - left.mean(dim=0)).abs()
    return (left - left.mean(dim=0)).square().sum(dim=0)
