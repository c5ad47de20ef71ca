# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""PackedLinear: torch reference of a linear layer that runs from its quantized form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import unpack_signs
from hbvla_ros.packed.layer import QuantizedLayer

RESIDENCIES = ('packed', 'bf16')
_ROW_TILE = 512


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

    ``packed`` keeps the sign planes as bytes and expands them in tiles of 512 rows at every call:
    ``y = sum_p row_scales[p] * (S_p @ T x) + bias``. ``bf16`` keeps the dequantized weight in the
    given dtype, whichever that is, and costs what an ordinary linear layer costs. Both give the
    same numbers up to rounding (1e-5 relative in float32).
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
        self._hadamard = layer.hadamard
        self.register_buffer('bias', None if bias is None else bias.detach().to(dtype))
        if residency == 'bf16':
            self.register_buffer('weight', layer.reconstruct().to(dtype))
        else:
            for part, tensor in layer.tensors().items():
                self.register_buffer(part, tensor)

    def quantized_layer(self) -> QuantizedLayer:
        """The layer as it now sits in memory; ``packed`` residency only."""
        parts = {name: part for name, part in self.named_buffers() if name != 'bias'}
        return QuantizedLayer(columns=self.in_features, hadamard=self._hadamard, **parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features) in the dtype of the inputs."""
        bias = self.get_buffer('bias') if self.bias is not None else None
        if self.residency == 'bf16':
            return nn.functional.linear(inputs, self.get_buffer('weight'), bias)
        layer = self.quantized_layer()
        outputs = self._multiply(layer, layer.transform(inputs))
        return outputs if bias is None else outputs + bias

    def _multiply(self, layer: QuantizedLayer, inputs: Tensor) -> Tensor:
        """Sum of the scaled sign planes times the transformed inputs, tile by tile of rows."""
        tiles = []
        for start in range(0, layer.rows, _ROW_TILE):
            rows = slice(start, start + _ROW_TILE)
            total: Tensor | None = None
            for plane, scale in zip(layer.planes[:, rows], layer.row_scales[:, rows], strict=True):
                signs = unpack_signs(plane, layer.columns, inputs.dtype)
                product = (inputs @ signs.T) * scale.to(inputs.dtype)
                total = product if total is None else total + product
            assert total is not None, 'a quantized layer has at least one plane'
            tiles.append(total)
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=-1)

    def extra_repr(self) -> str:
        """Sizes and residency for ``print(network)``."""
        return f'{self.in_features}, {self.out_features}, residency={self.residency}'
