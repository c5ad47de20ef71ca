# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The quantization methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.methods import (
    billm,
    bivlm,
    dbf,
    hbllm,
    hbvla,
    hbvla_options,
    rtn,
    signplane,
    signplane_options,
)
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.summaries import list_methods


@dataclass(frozen=True)
class Method:
    """A quantization method.

    Attributes:
        name: what ``--method`` takes.
        quantize: (weight, hessian or None, options) -> QuantizedLayer. Weight and Hessian are
            float32 (rows, columns) and (columns, columns); the options are of the type of
            ``presets['default']``. With ``two_hessians`` it also takes the keyword
            ``saliency_hessian``, the Hessian that choices are made by where another one is used
            for the error feedback.
        presets: named options; 'default' is always there.
        needs_hessian: it cannot run without calibration.
        uses_hessian: calibration changes what it makes.
        two_hessians: see ``quantize``.
        planes: its options have ``planes``, sign planes 1 to 3.
        budgeted: ``--bits`` may be a budget of stored bits, not only a number of planes.
    """

    name: str
    quantize: Callable[..., QuantizedLayer]
    presets: Mapping[str, MethodOptions]
    needs_hessian: bool = False
    uses_hessian: bool = True
    two_hessians: bool = False
    planes: bool = False
    budgeted: bool = False

    def preset(self, name: str) -> MethodOptions:
        """Options by the preset's name.

        Raises:
            HbvlaError: there is none of that name.
        """
        if name not in self.presets:
            known = ', '.join(self.presets)
            raise HbvlaError(f'--preset {name}: {self.name} has {known}')
        return self.presets[name]


METHODS = {
    method.name: method
    for method in (
        Method(
            'rtn',
            rtn.quantize,
            {'default': rtn.RtnOptions()},
            uses_hessian=False,
            planes=True,
        ),
        Method(
            'signplane',
            signplane.quantize,
            signplane_options.PRESETS,
            planes=True,
            budgeted=True,
        ),
        Method('dbf', dbf.quantize, {'default': dbf.DbfOptions()}, budgeted=True),
        Method('billm', billm.quantize, billm.PRESETS),
        Method('hbllm', hbllm.quantize, hbllm.PRESETS),
        Method('hbvla', hbvla.quantize, hbvla_options.PRESETS, two_hessians=True),
        Method('bivlm', bivlm.quantize, bivlm.PRESETS, uses_hessian=False),
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
