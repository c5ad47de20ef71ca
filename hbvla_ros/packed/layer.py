# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The quantized layer: what every method produces and every runtime decodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import bytes_per_row, unpack_signs
from hbvla_ros.packed.hadamard import block_hadamard

_SCALE_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class QuantizedLayer:
    """Weight of one linear layer as sign planes and scales (DESIGN section 4).

    ``W x = sum_p row_scales[p] * (S_p @ T x)`` with the column transform
    ``T x = Hadamard(column_scale * x[permutation])``.
    Random signs, where a method uses them, are the signs of the column scale and cost nothing.
    The bias is not part of it: it stays an unquantized tensor. Every tensor is stored as it is;
    a new optional tensor (an int8 panel, a second factor) is a new field here.

    Attributes:
        columns: number of inputs.
        planes: uint8 (P, rows, ceil(columns / 8)), P sign planes of packed signs.
        row_scales: float16 or bfloat16 (P, rows).
        hadamard: largest Hadamard block (1: no transform), see ``hadamard_blocks``.
        column_scale: float16 or bfloat16 (columns,), or None for all ones.
        permutation: int32 (columns,), or None for the given order.
    """

    columns: int
    planes: Tensor
    row_scales: Tensor
    hadamard: int = 1
    column_scale: Tensor | None = None
    permutation: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return int(self.planes.shape[1])

    @property
    def weights(self) -> int:
        """Number of weights the layer stands for."""
        return self.rows * self.columns

    @property
    def nominal_bits(self) -> float:
        """Bits per weight as papers print them: sign planes only, scales not counted."""
        return float(self.planes.shape[0])

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by part name; nothing else is needed but ``options()``."""
        parts = {'planes': self.planes, 'row_scales': self.row_scales}
        if self.column_scale is not None:
            parts['column_scale'] = self.column_scale
        if self.permutation is not None:
            parts['permutation'] = self.permutation
        return parts

    def options(self) -> dict[str, int]:
        """The numbers besides the tensors, as they stand in the manifest."""
        return {'columns': self.columns, 'hadamard': self.hadamard}

    def stored_bytes(self) -> int:
        """Bytes of all tensors needed to rebuild the weight."""
        return sum(part.numel() * part.element_size() for part in self.tensors().values())

    def transform(self, inputs: Tensor) -> Tensor:
        """Apply the column transform T to activations of shape (..., columns)."""
        if self.permutation is not None:
            inputs = inputs[..., self.permutation.long()]
        if self.column_scale is not None:
            inputs = inputs * self.column_scale.to(inputs.dtype)
        return block_hadamard(inputs, self.hadamard)

    def reconstruct(self) -> Tensor:
        """The weight the layer stands for, float32 (rows, columns)."""
        signs = unpack_signs(self.planes, self.columns)
        weight = (self.row_scales.float()[..., None] * signs).sum(dim=0)
        weight = block_hadamard(weight, self.hadamard)
        if self.column_scale is not None:
            weight = weight * self.column_scale.float()
        if self.permutation is not None:
            restored = torch.empty_like(weight)
            restored[:, self.permutation.long()] = weight
            weight = restored
        return weight

    def check(self, name: str) -> None:
        """Refuse tensors that do not fit together.

        Raises:
            HbvlaError: naming the layer and the part that is wrong.
        """
        planes, rows, columns = self.planes.shape[0], self.rows, self.columns
        expected: dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]] = {
            'planes': ((planes, rows, bytes_per_row(columns)), (torch.uint8,)),
            'row_scales': ((planes, rows), _SCALE_DTYPES),
            'column_scale': ((columns,), _SCALE_DTYPES),
            'permutation': ((columns,), (torch.int32,)),
        }
        for part, tensor in self.tensors().items():
            shape, dtypes = expected[part]
            if tuple(tensor.shape) != shape or tensor.dtype not in dtypes:
                raise HbvlaError(
                    f'{name}.{part}: expected {_describe(shape, dtypes)}, found '
                    f'{tuple(tensor.shape)} {_short(tensor.dtype)}; quantize the checkpoint again'
                )

    @staticmethod
    def from_parts(
        name: str, options: Mapping[str, int], parts: Mapping[str, Tensor]
    ) -> QuantizedLayer:
        """Put a stored layer together again and check it.

        Args:
            name: module name, for the message.
            options: what :meth:`options` gave.
            parts: what :meth:`tensors` gave.

        Raises:
            HbvlaError: a tensor has the wrong shape or dtype.
        """
        layer = QuantizedLayer(columns=options['columns'], hadamard=options['hadamard'], **parts)
        layer.check(name)
        return layer


def store_scale(values: Tensor) -> Tensor:
    """Round scales to 16 bits: float16 or bfloat16, whichever is closer.

    float16 has the finer steps and wins unless values leave its range (6e-5 to 65504).

    Args:
        values: float, any shape.
    """
    candidates = [values.to(dtype) for dtype in _SCALE_DTYPES]
    errors = [float((values.float() - c.float()).square().sum()) for c in candidates]
    # An overflow to infinity or NaN makes the first comparison false.
    return candidates[0] if errors[0] <= errors[1] else candidates[1]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _describe(shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> str:
    return f'{shape} {" or ".join(_short(dtype) for dtype in dtypes)}'
