# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A matrix written as sign planes and a few coefficients a row."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PlaneCode:
    """Levels ``sum_c coefficients[c] * product of the planes in products[c]`` of each row.

    The same reading as ``packed.forms.grouped.GroupedPart``: product 0 is empty, its coefficient is
    the mean.

    Attributes:
        planes: int8 (P, rows, n) of -1 and +1.
        coefficients: float32 (C, rows).
        products: C bit masks of planes.
    """

    planes: Tensor
    coefficients: Tensor
    products: tuple[int, ...]

    def levels(self) -> Tensor:
        """float32 (rows, n): the matrix the code stands for."""
        signs = self.planes.to(self.coefficients.dtype)
        total = torch.zeros_like(signs[0])
        for product, coefficient in zip(self.products, self.coefficients, strict=True):
            chosen = [signs[plane] for plane in range(len(signs)) if product >> plane & 1]
            term = coefficient[:, None]
            for plane in chosen:
                term = term * plane
            total += term
        return total

    def scaled(self, factor: float) -> PlaneCode:
        """The code of ``factor`` times the matrix."""
        return dataclasses.replace(self, coefficients=self.coefficients * factor)

    def rounded(self, dtype: torch.dtype | None) -> PlaneCode:
        """Coefficients rounded to the 16-bit dtype they are stored in; None leaves them."""
        if dtype is None:
            return self
        # An error that the feedback has blown up must not become infinite.
        largest = torch.finfo(dtype).max
        values = self.coefficients.clamp(-largest, largest).to(dtype)
        return dataclasses.replace(self, coefficients=values.float())
