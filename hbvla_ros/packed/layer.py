# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The quantized layer: what every method produces and every runtime decodes.

A layer has one of a few forms (``packed/forms``); all of them are sign planes with scales behind a
column transform. Every tensor is stored as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.checks import INDEX_DTYPES, SCALE_DTYPES, Expected, Fault


class QuantizedLayer(ABC):
    """Weight of one linear layer as sign planes and scales (DESIGN section 4).

    The bias is not part of it: it stays an unquantized tensor.

    Attributes:
        form: name of the form in the manifest.
        columns: number of inputs.
    """

    form: ClassVar[str]
    columns: int

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of outputs."""

    @property
    @abstractmethod
    def nominal_bits(self) -> float:
        """Bits per weight as papers print them: signs only, all else not counted."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by part name; nothing else is needed but :meth:`options`."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What is needed besides the tensors, as it stands in the manifest (plain JSON)."""

    @abstractmethod
    def apply(self, inputs: Tensor) -> Tensor:
        """Map activations (..., columns) to (..., rows) from the bits, in the inputs' dtype."""

    @abstractmethod
    def reconstruct(self) -> Tensor:
        """The weight the layer stands for, float32 (rows, columns)."""

    @abstractmethod
    def expected(self) -> Expected:
        """Shape and dtypes that each of the stored tensors must have."""

    @abstractmethod
    def faults(self) -> Iterator[Fault]:
        """What keeps the tensors and options from making a layer, see ``packed/checks``."""

    @property
    def weights(self) -> int:
        """Number of weights the layer stands for."""
        return self.rows * self.columns

    def stored_bytes(self) -> int:
        """Bytes of all tensors needed to rebuild the weight."""
        return sum(part.numel() * part.element_size() for part in self.tensors().values())

    def check(self, name: str) -> None:
        """Refuse tensors and options that do not fit together or hold impossible values.

        Raises:
            HbvlaError: naming the layer and the tensor or option that is wrong.
        """
        for part, problem in self.faults():
            raise HbvlaError(f'{name}.{part}: {problem}; quantize the checkpoint again')


def store_scale(values: Tensor) -> Tensor:
    """Round scales to 16 bits: float16 or bfloat16, whichever is closer.

    float16 has the finer steps and wins unless values leave its range (6e-5 to 65504).

    Args:
        values: float, any shape.
    """
    candidates = [values.to(dtype) for dtype in SCALE_DTYPES]
    errors = [float((values.float() - c.float()).square().sum()) for c in candidates]
    # An overflow to infinity or NaN makes the first comparison false.
    return candidates[0] if errors[0] <= errors[1] else candidates[1]


def store_index(values: Tensor, columns: int) -> Tensor:
    """Column numbers or counts as int16, or as int32 where the layer is too wide for that.

    Args:
        values: integers from 0 to ``columns``, any shape.
        columns: number of columns of the layer.
    """
    index_dtype = INDEX_DTYPES[0] if columns < 2**15 else INDEX_DTYPES[1]
    return values.to(index_dtype)
