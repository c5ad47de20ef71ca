# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Signs of a quantized layer as trainable tensors (straight-through).

Behind every sign stands a latent value; the layer computes with its sign, and the gradient goes to
the value as if it were used itself. A latent value begins at the margin of its sign: how much worse
the weight's own error would become if it flipped, so that signs that hardly matter flip first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.bits import pack_signs, unpack_signs
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.log_scales import read_scale
from hbvla_ros.quantization.column_basis import ColumnBasis

# Beyond the largest a latent value would only take longer to come back; below the smallest a sign
# would flip at the first step, whatever it is that the gradient says there.
LARGEST, _SMALLEST = 1.0, 0.05

# The forms whose signs can be trained; the grouped one's stay as they are.
Signed = SignPlaneLayer | FactoredLayer
SIGN_TENSORS = ('planes', 'outer', 'inner')


class _StraightThrough(torch.autograd.Function):
    """Signs forward, the gradient as it comes backward."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return torch.where(values >= 0, 1.0, -1.0)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return gradient


def signs_of(latent: Tensor) -> Tensor:
    """-1 or +1, any shape; gradients pass straight through."""
    signs: Tensor = _StraightThrough.apply(latent)
    return signs


def latent_signs(layer: Signed, weight: Tensor) -> dict[str, Tensor]:
    """Latent values of all signs of a layer.

    Args:
        layer: with its signs and scales.
        weight: float32 (rows, columns), the full-precision weight it stands for.

    Returns:
        Name of the stored tensor to float32 of its unpacked shape, 0.05 to 1 in magnitude.
    """
    scale = layer.column_scale
    values = None if scale is None else read_scale(scale, layer.column_scale_span)
    if layer.permutation is not None:
        weight = weight[:, layer.permutation.long()]
    wanted = ColumnBasis(values, layer.hadamard).inner(weight)
    if isinstance(layer, FactoredLayer):
        return _factor_latents(layer, wanted)
    return {'planes': _plane_latents(layer, wanted)}


def _plane_latents(layer: SignPlaneLayer, wanted: Tensor) -> Tensor:
    """Margin of each sign of each plane, the others as they are."""
    error = -wanted
    parts = []
    for index, plane, scale in layer.split():
        rows = slice(None) if index is None else index
        signs = unpack_signs(plane, layer.columns)
        error[rows] += scale[:, None] * signs
        parts.append((rows, signs, scale[:, None]))
    # A flip moves the weight by -2 s S: ((E - 2 s S)^2 - E^2) / 4 s^2 = 1 - S E / s.
    return torch.cat([_latent(signs, 1 - signs * error[rows] / s) for rows, signs, s in parts])


def _factor_latents(layer: FactoredLayer, wanted: Tensor) -> dict[str, Tensor]:
    """The same of the two factors of a double binary factorization."""
    outer, inner = unpack_signs(layer.outer, layer.width), unpack_signs(layer.inner, layer.columns)
    row = read_scale(layer.row_scales, layer.row_scales_span)[:, None]
    middle = read_scale(layer.inner_scales, layer.inner_scales_span)[:, None]
    left, right = outer * row, inner * middle
    error = left @ right - wanted
    # Per flip relative to what it adds by itself: the row that it turns round, times its scale.
    outer_cost = (error @ right.T) / (row * right.square().sum(dim=1)[None, :])
    inner_cost = (left.T @ error) / (middle * left.square().sum(dim=0)[:, None])
    return {
        'outer': _latent(outer, 1 - outer * outer_cost),
        'inner': _latent(inner, 1 - inner * inner_cost),
    }


def _latent(signs: Tensor, margin: Tensor) -> Tensor:
    """Signs with the magnitude of their margins; a scale of zero has no margin."""
    return signs * margin.nan_to_num(LARGEST).clamp(_SMALLEST, LARGEST)


def weight_of(layer: Signed, latents: Mapping[str, Tensor]) -> Tensor:
    """The weight that latent signs make with the layer's scales, float32 (rows, columns).

    Args:
        layer: its scales may be trainable float32 tensors; its own signs are not looked at.
        latents: as :func:`latent_signs` gives them.
    """
    if isinstance(layer, FactoredLayer):
        row = read_scale(layer.row_scales, layer.row_scales_span)[:, None]
        middle = read_scale(layer.inner_scales, layer.inner_scales_span)[:, None]
        return layer.transform.undo(
            (signs_of(latents['outer']) * row) @ (signs_of(latents['inner']) * middle)
        )
    signs = signs_of(latents['planes'])
    weight = torch.zeros(layer.rows, layer.columns, device=signs.device)
    start = 0
    for index, plane, scale in layer.split():
        product = scale[:, None] * signs[start : start + len(plane)]
        start += len(plane)
        weight = weight + product if index is None else weight.index_add(0, index, product)
    return layer.transform.undo(weight)


def with_latent_signs(layer: QuantizedLayer, latents: Mapping[str, Tensor]) -> QuantizedLayer:
    """The layer with the signs of latent values in place of its own, packed."""
    return with_packed_signs(
        layer, {name: pack_signs(values.detach()) for name, values in latents.items()}
    )


def with_packed_signs(layer: QuantizedLayer, packed: Mapping[str, Tensor]) -> QuantizedLayer:
    """The layer with other signs, by the names of their stored tensors."""
    return dataclasses.replace(layer, **packed)  # type: ignore[type-var]
