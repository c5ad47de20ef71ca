# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``rtn``: signs of the weights themselves, row scale mean-abs, no calibration (spec 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer, store_scale
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.signs import Rounder, initial_scales


@dataclass(frozen=True)
class RtnOptions(MethodOptions):
    """Options of ``rtn``.

    Attributes:
        planes: number of sign planes, 1 to 3.
    """

    planes: int = 1


def quantize(weight: Tensor, hessian: Tensor | None, options: RtnOptions) -> QuantizedLayer:
    """Round each weight to the nearest level of its row.

    One plane is the sign and the mean absolute value of the row; further planes are the same of
    what is left.

    Args:
        weight: float32 (rows, columns).
        hessian: not used.
        options: ``planes`` is used.
    """
    scales = store_scale(initial_scales(weight, options.planes))
    signs = Rounder(scales.float()).signs(weight.T).transpose(1, 2)
    return SignPlaneLayer.uniform(weight.shape[1], pack_signs(signs), scales)
