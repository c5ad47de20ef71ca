# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The quantization methods by name, and the planes that a bit budget buys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.methods import rtn, signplane
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.summaries import list_methods

MethodFunction = Callable[[Tensor, 'Tensor | None', MethodOptions], QuantizedLayer]


@dataclass(frozen=True)
class Method:
    """A quantization method.

    Attributes:
        name: what ``--method`` takes.
        quantize: (weight, hessian or None, options) -> QuantizedLayer.
        budgeted: ``--bits`` may be a budget of stored bits, not only a number of planes.
        column_scale: it stores one scale a column besides the row scales.
    """

    name: str
    quantize: MethodFunction
    budgeted: bool
    column_scale: bool


METHODS = {
    method.name: method
    for method in (
        Method('rtn', rtn.quantize, budgeted=False, column_scale=False),
        Method('signplane', signplane.quantize, budgeted=True, column_scale=True),
    )
}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        HbvlaError: there is none.
    """
    if name not in METHODS:
        raise HbvlaError(f'method {name!r} is unknown; use one of these: {list_methods()}')
    return METHODS[name]
