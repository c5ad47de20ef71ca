# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A method with its size and options, as the benchmarks take it on the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.budget import options_for_layer
from hbvla_ros.quantization.options import MethodOptions, with_settings
from hbvla_ros.quantization.registry import METHODS, Method, find_method

# Budgets at which methods that take one are compared when nothing else is asked for.
BUDGETS = (1.05, 1.3, 2.05)


@dataclass(frozen=True)
class MethodSpec:
    """A method with its size and options.

    Attributes:
        text: as it was written, such as ``signplane:1.05`` or ``hbvla:best``.
        method: the method.
        bits: what ``--bits`` would say, None for what the method stores by itself.
        options: the preset with the settings, but for size and seed.
    """

    text: str
    method: Method
    bits: float | None
    options: MethodOptions

    @staticmethod
    def parse(text: str) -> MethodSpec:
        """From ``NAME[:BITS][:PRESET][:SETTING=VALUE...]``.

        Raises:
            HbvlaError: no such method, preset or setting.
        """
        name, *fields = text.split(':')
        method = find_method(name)
        bits, preset, settings = None, 'default', []
        for part in fields:
            if '=' in part:
                settings.append(part)
            elif _is_number(part):
                bits = float(part)
            else:
                preset = part
        options = with_settings(method.preset(preset), settings, name)
        return MethodSpec(text, method, bits, options)

    def for_layer(self, rows: int, columns: int, seed: int) -> MethodOptions:
        """Options for a layer of that shape, with the size the specification asks for.

        Raises:
            HbvlaError: the method cannot meet the number of bits on such a layer.
        """
        try:
            sized = options_for_layer(self.method, self.options, rows, columns, self.bits)
        except HbvlaError as error:
            raise HbvlaError(f'{self.text}: {error}') from error
        return dataclasses.replace(sized, seed=seed)


def default_specs() -> list[str]:
    """Every method as it is compared by default.

    Methods that take a budget of stored bits at each of ``BUDGETS``, the others at their own size;
    preset 'best' beside 'default' where there is one.
    """
    texts = []
    for name, method in METHODS.items():
        for preset in ('', ':best') if 'best' in method.presets else ('',):
            budgets = [f':{bits:g}' for bits in BUDGETS] if method.budgeted else ['']
            texts += [f'{name}{budget}{preset}' for budget in budgets]
    return texts


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
