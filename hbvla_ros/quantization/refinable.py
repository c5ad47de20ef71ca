# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Scales of a quantized layer as trainable tensors, and its signs where that is wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer, store_scale
from hbvla_ros.packed.log_scales import read_scale, store_log_scale
from hbvla_ros.quantization.sign_latents import (
    LARGEST,
    latent_signs,
    weight_of,
    with_latent_signs,
)

_SCALES = {
    SignPlaneLayer: ('row_scales', 'column_scale'),
    FactoredLayer: ('row_scales', 'inner_scales', 'column_scale'),
}


def float_scales(layer: QuantizedLayer) -> dict[str, Tensor]:
    """All scales of a layer as float32 by the names of their stored tensors.

    Args:
        layer: of any form. Of a grouped layer the coefficients and the panel's scales count.
    """
    if isinstance(layer, GroupedLayer):
        scales = {f'{name}_coefficients': p.coefficients.float() for name, p in layer.parts.items()}
        if layer.panel_scales is not None:
            scales['panel_scales'] = layer.panel_scales.float()
        return scales
    return {
        name: read_scale(getattr(layer, name), getattr(layer, f'{name}_span'))
        for name in _SCALES[type(layer)]
        if getattr(layer, name) is not None
    }


def with_float_scales(layer: QuantizedLayer, scales: Mapping[str, Tensor]) -> QuantizedLayer:
    """The layer with float32 scales in place of the stored ones; its weight follows them.

    Args:
        layer: of any form.
        scales: by the names of :func:`float_scales`; gradients flow through ``reconstruct``.
    """
    if isinstance(layer, GroupedLayer):
        parts = {
            name: dataclasses.replace(part, coefficients=scales[f'{name}_coefficients'])
            for name, part in layer.parts.items()
        }
        return dataclasses.replace(layer, parts=parts, panel_scales=scales.get('panel_scales'))
    changes: dict[str, Tensor | None] = {}
    for name, scale in scales.items():
        changes |= {name: scale, f'{name}_span': None}
    return dataclasses.replace(layer, **changes)  # type: ignore[type-var]


def with_stored_scales(layer: QuantizedLayer, scales: Mapping[str, Tensor]) -> QuantizedLayer:
    """The layer with new scales, rounded to as many bits as its own have.

    Args:
        layer: of any form.
        scales: float32, by the names of :func:`float_scales`.
    """
    scales = {name: scale.detach() for name, scale in scales.items()}
    if isinstance(layer, GroupedLayer):
        return with_float_scales(layer, {n: store_scale(scale) for n, scale in scales.items()})
    changes: dict[str, Tensor | None] = {}
    for name, scale in scales.items():
        if getattr(layer, f'{name}_span') is None:
            changes[name] = store_scale(scale)
        else:
            changes[name], changes[f'{name}_span'] = store_log_scale(scale)
    return dataclasses.replace(layer, **changes)  # type: ignore[type-var]


class RefinableLinear(nn.Module):
    """A linear layer that computes with the weight its scales make, and passes gradients on.

    Attributes:
        scales: trainable, by the names of their stored tensors.
        latents: latent values of the signs; empty where these stay what they are.
        bias: trainable, or None.
    """

    def __init__(
        self, layer: QuantizedLayer, bias: Tensor | None, weight: Tensor | None = None
    ) -> None:
        """Take over a quantized layer.

        Args:
            layer: a form without latent signs keeps its signs in any case.
            bias: (rows,) or None; trainable as well.
            weight: full-precision weight (rows, columns), for signs that are trained too; None for
                signs that stay.
        """
        super().__init__()
        self._layer = layer
        self.scales = nn.ParameterDict(
            {name: nn.Parameter(scale.clone()) for name, scale in float_scales(layer).items()}
        )
        self.latents = nn.ParameterDict()
        if weight is not None and isinstance(layer, SignPlaneLayer | FactoredLayer):
            for name, values in latent_signs(layer, weight.detach().float()).items():
                self.latents[name] = nn.Parameter(values)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., columns) to (..., rows)."""
        layer = with_float_scales(self._layer, dict(self.scales.items()))
        if self.latents and isinstance(layer, SignPlaneLayer | FactoredLayer):
            weight = weight_of(layer, dict(self.latents.items()))
        else:
            weight = layer.reconstruct()
        return nn.functional.linear(inputs, weight.to(inputs.dtype), self.bias)

    def clamp_latents(self) -> None:
        """Bring latent values back to where a sign can still flip in reasonable time."""
        for values in self.latents.values():
            values.data.clamp_(-LARGEST, LARGEST)

    def stored(self) -> QuantizedLayer:
        """The layer with its present signs and scales, these rounded as they are stored."""
        with torch.no_grad():
            layer = with_latent_signs(self._layer, dict(self.latents.items()))
            return with_stored_scales(layer, dict(self.scales.items()))
