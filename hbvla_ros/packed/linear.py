# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""PackedLinear: torch reference of a linear layer that runs from its quantized form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.registry import build_layer
from hbvla_ros.packed.layer import QuantizedLayer

RESIDENCIES = ('packed', 'bf16')


def check_residency(residency: str) -> None:
    """Refuse a residency this version cannot run.

    Raises:
        HbvlaError: unknown, or known but not there yet.
    """
    if residency == 'int8':
        raise HbvlaError("residency 'int8' is not in this version; use 'packed' or 'bf16'")
    if residency not in RESIDENCIES:
        raise HbvlaError(f'residency {residency!r} is unknown; use one of {", ".join(RESIDENCIES)}')


class PackedLinear(nn.Module):
    """A linear layer held as bits (``packed``) or rebuilt once at load (``bf16``).

    ``packed`` keeps the stored tensors and expands the signs at every call, as the layer's form
    says. ``bf16`` keeps the dequantized weight in the given dtype, whichever that is, and costs
    what an ordinary linear layer costs. Both give the same numbers up to rounding (1e-5 relative
    in float32).
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        bias: Tensor | None,
        residency: str = 'packed',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take over a quantized layer.

        Args:
            layer: the quantized weight.
            bias: (rows,) or None.
            residency: 'packed' or 'bf16'.
            dtype: dtype of the dequantized weight and of the bias.

        Raises:
            HbvlaError: the residency is unknown.
        """
        super().__init__()
        check_residency(residency)
        self.in_features = layer.columns
        self.out_features = layer.rows
        self.residency = residency
        self._form, self._options = layer.form, layer.options()
        self.register_buffer('bias', None if bias is None else bias.detach().to(dtype))
        if residency == 'bf16':
            self.register_buffer('weight', layer.reconstruct().to(dtype))
        else:
            for part, tensor in layer.tensors().items():
                self.register_buffer(part, tensor)

    def quantized_layer(self) -> QuantizedLayer:
        """The layer as it now sits in memory, not checked again; ``packed`` residency only."""
        parts = {name: part for name, part in self.named_buffers() if name != 'bias'}
        return build_layer('packed layer', self._form, self._options, parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features) in the dtype of the inputs."""
        bias = self.get_buffer('bias') if self.bias is not None else None
        if self.residency == 'bf16':
            return nn.functional.linear(inputs, self.get_buffer('weight'), bias)
        outputs = self.quantized_layer().apply(inputs)
        return outputs if bias is None else outputs + bias

    def extra_repr(self) -> str:
        """Sizes and residency for ``print(network)``."""
        return f'{self.in_features}, {self.out_features}, residency={self.residency}'
