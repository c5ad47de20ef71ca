# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whether calibration fits into memory, estimated before anything large is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.calibration import CalibrationSet, NetworkInputs
from hbvla_ros.quantization.targets import Chain, block_chains

_MEMORY_FILE = Path('/proc/meminfo')
_FLOAT, _DOUBLE = 4, 8
# The graph keeps each output, what the functions behind it save, and gradients of that size.
_COPIES_IN_GRAPH = 3
# Calls of a block and their outputs, both alive while a chain advances.
_COPIES_OF_CALLS = 2
# Hessian, its inverse and the Cholesky factor of the layer that is being solved.
_MATRICES_IN_SOLVER = 3


def available_bytes() -> int | None:
    """Memory that new allocations can get without swapping; None where nobody says."""
    try:
        for line in _MEMORY_FILE.read_text(encoding='ascii').splitlines():
            if line.startswith('MemAvailable:'):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def check_memory(skeleton: nn.Module, calibration: CalibrationSet, probe: bool) -> None:
    """Refuse a calibration that the machine's memory cannot hold.

    Args:
        skeleton: the inference network on the meta device.
        calibration: its inputs.
        probe: whether the action gradient is taken as well.

    Raises:
        HbvlaError: more is needed than available; names the need and the way out.
    """
    available = available_bytes()
    if available is None:
        return
    plain, probing = needed_bytes(skeleton, calibration)
    needed = max(plain, probing) if probe else plain
    if needed <= available:
        return
    way_out = 'add --probe none' if plain <= available else 'leave out --calibration'
    raise HbvlaError(
        f'--calibration: needs about {needed / 1e9:.1f} GB of memory, '
        f'{available / 1e9:.1f} GB are available; {way_out}'
    )


def needed_bytes(skeleton: nn.Module, calibration: CalibrationSet) -> tuple[int, int]:
    """Estimate of the largest memory use of calibration and of the action gradient, in bytes.

    Both hold the network in float32. Calibration further holds the inputs of one block for all
    frames, its Hessians and the solver's matrices; the gradient the outputs of all layers for one
    batch. Activations are measured: the network runs on tensors without memory.
    """
    network = _FLOAT * sum(parameter.numel() for parameter in skeleton.parameters())
    batch = max(calibration.batches, key=lambda one: len(one.pixel_values))
    chains = block_chains(skeleton)
    inputs, outputs = _activations(skeleton, chains, batch)
    frames = calibration.frames / len(batch.pixel_values)
    calls = round(_COPIES_OF_CALLS * frames * max(inputs))
    columns = [
        [int(skeleton.get_parameter(f'{name}.weight').shape[1]) for name in linears]
        for chain in chains
        for _, linears in chain
    ]
    hessians = _FLOAT * max(sum(width**2 for width in block) for block in columns)
    solver = _MATRICES_IN_SOLVER * _DOUBLE * max(max(block) for block in columns) ** 2
    return network + calls + hessians + solver, network + _COPIES_IN_GRAPH * outputs


def _activations(
    skeleton: nn.Module, chains: Sequence[Chain], batch: NetworkInputs
) -> tuple[list[int], int]:
    """Bytes of one batch: inputs of the first block of each chain, outputs of all its layers."""
    inputs, outputs = [0] * len(chains), 0
    handles = []

    def add_output(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal outputs
        outputs += _FLOAT * output.numel()

    for number, chain in enumerate(chains):

        def add_input(_module: nn.Module, args: tuple[Tensor, ...], number: int = number) -> None:
            inputs[number] += _FLOAT * args[0].numel()

        handles.append(skeleton.get_submodule(chain[0][0]).register_forward_pre_hook(add_input))
        for _, linears in chain:
            for name in linears:
                handles.append(skeleton.get_submodule(name).register_forward_hook(add_output))
    try:
        with torch.no_grad():
            skeleton(*(None if one is None else one.to('meta') for one in batch.arguments()))
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs
