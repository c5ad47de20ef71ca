# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What is asked of a quantization, and what it amounts to once all of it is checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.budget import check_bits
from hbvla_ros.quantization.options import MethodOptions, check_seed, with_settings
from hbvla_ros.quantization.probe_options import PROBE_PRESETS, ProbeOptions
from hbvla_ros.quantization.registry import Method, find_method
from hbvla_ros.quantization.targets import DEFAULT_COMPONENTS, check_components

# What ``--probe`` takes, and the preset of the probe's options it starts from.
PROBES = {'action': 'default', 'block': 'block', 'parity': 'parity', 'none': 'none'}
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        method: name of the method.
        bits: whole number of sign planes, or budget of stored bits per weight; None for what the
            method stores by itself.
        seed: seed of everything random.
        probe: 'action' weighs calibration tokens by the action gradient, 'block' by the paper's
            block-wise gradient, 'parity' like that and to the letter, 'none' does not.
        options: options of the method in place of its preset.
        preset: preset of the method.
        settings: options of the method as ``NAME=VALUE``, on top of the preset.
        probe_settings: options of the probe as ``NAME=VALUE``.
        components: what is quantized, see ``targets.COMPONENTS``.
        device: where it computes.
        dtype: type of the forward passes, 'float32' or 'bfloat16'.
        refine: steps of the refinement after quantization, 0 for none.
        refine_frames: frames it draws from; None for the calibration frames.
        refine_signs: whether it trains the signs as well.
        cache_bytes: activations between two blocks that stay in memory; more go to disk. None
            for a quarter of what is available.
    """

    method: str = 'signplane'
    bits: float | None = None
    seed: int = 0
    probe: str = 'action'
    options: MethodOptions | None = None
    preset: str = 'default'
    settings: tuple[str, ...] = ()
    probe_settings: tuple[str, ...] = ()
    components: tuple[str, ...] = DEFAULT_COMPONENTS
    device: str = 'cpu'
    dtype: str = 'float32'
    refine: int = 0
    refine_frames: int | None = None
    refine_signs: bool = False
    cache_bytes: int | None = None

    def resolve(self) -> Plan:
        """Check everything that needs no checkpoint.

        Raises:
            HbvlaError: anything that is unknown or out of its range.
        """
        if self.probe not in PROBES:
            raise HbvlaError(f'--probe {self.probe}: use one of {", ".join(PROBES)}')
        if self.dtype not in DTYPES:
            raise HbvlaError(f'--dtype {self.dtype}: use one of {", ".join(DTYPES)}')
        check_seed(self.seed)
        method = find_method(self.method)
        check_bits(method, self.bits)
        options = self.options or method.preset(self.preset)
        options = with_settings(options, self.settings, method.name)
        probe = PROBE_PRESETS[PROBES[self.probe]]
        probe = with_settings(probe, self.probe_settings, 'the probe', '--probe-set')
        return Plan(
            method,
            dataclasses.replace(options, seed=self.seed),
            self.bits,
            probe,
            check_components(self.components),
            _device(self.device),
            DTYPES[self.dtype],
            self.refine,
            self.refine_frames,
            self.refine_signs,
        )


@dataclass(frozen=True)
class Plan:
    """A request whose names are resolved.

    Attributes:
        method: the method.
        options: its options, the same for all layers but for their size.
        bits: see :class:`Request`.
        probe: options of the probe.
        components: what is quantized, in the usual order.
        device: where it computes.
        dtype: type of the forward passes.
        refine: steps of the refinement.
        refine_frames: frames it draws from; None for the calibration frames.
        refine_signs: whether it trains the signs as well.
    """

    method: Method
    options: MethodOptions
    bits: float | None
    probe: ProbeOptions
    components: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype
    refine: int = 0
    refine_frames: int | None = None
    refine_signs: bool = False

    def description(self) -> dict[str, Any]:
        """Plain values of everything that decides the result, by the names of the flags."""
        return {
            'method': self.method.name,
            'bits': self.bits,
            'options': dataclasses.asdict(self.options),
            'probe': dataclasses.asdict(self.probe),
            'components': list(self.components),
            'device': self.device.type,
            'dtype': str(self.dtype).removeprefix('torch.'),
            'refine': self.refine,
            'refine_frames': self.refine_frames,
            'refine_signs': self.refine_signs,
        }


def _device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        HbvlaError: it is not.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition('\n')[0]
        raise HbvlaError(f'--device {name}: cannot be used ({reason}); use cpu') from error
    return device
