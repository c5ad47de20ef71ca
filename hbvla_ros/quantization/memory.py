# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whether calibration fits into memory, estimated before anything large is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.request import Plan
from hbvla_ros.quantization.targets import Chain, block_chains, resident_linears
from hbvla_ros.vla.checkpoint import Checkpoint

# Smaller networks are differentiated as a whole, larger ones block by block. It does not depend
# on the machine, which would decide about the last bits of the result.
WHOLE_NETWORK_PARAMETERS = 500_000_000

_MEMORY_FILE = Path('/proc/meminfo')
_FLOAT, _DOUBLE = 4, 8
# The graph keeps each output, what the functions behind it save, and gradients of that size.
_COPIES_IN_GRAPH = 3
# Hessian, its inverse and the Cholesky factor of the layer that is being solved.
_MATRICES_IN_SOLVER = 3
# A layer's weight in float32, what is left of it, its rebuilt form and their difference.
_WEIGHTS_IN_SOLVER = 4
# Activations between blocks may take this part of the available memory before they go to disk.
_CACHE_PART = 4


@dataclass(frozen=True)
class MemoryNeed:
    """Estimates in bytes.

    Attributes:
        working: what lies outside the blocks, one block, its Hessians and the solver.
        activations: what waits between two blocks, of all frames; it may wait on disk instead.
        gradient: the whole network with the graph of one batch; 0 where it is not differentiated
            as a whole.
    """

    working: int
    activations: int
    gradient: int


def available_bytes() -> int | None:
    """Memory that new allocations can get without swapping; None where nobody says."""
    try:
        for line in _MEMORY_FILE.read_text(encoding='ascii').splitlines():
            if line.startswith('MemAvailable:'):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def check_frames(checkpoint: Checkpoint, frames: int, further: int) -> None:
    """Refuse more frames than memory holds, before they are read.

    Args:
        checkpoint: whose images they are.
        frames: calibration and held-out frames together; float32.
        further: frames of the refinement beside them; uint8.

    Raises:
        HbvlaError: their images would take more than half of the available memory.
    """
    available = available_bytes()
    height, width = checkpoint.config.image_size
    pixels = 3 * len(checkpoint.platform.cameras) * height * width
    # Each tower takes the three colours with constants of its own.
    needed = pixels * (2 * _FLOAT * frames + further)
    if available is None or needed <= available // 2:
        return
    raise HbvlaError(
        f'the images of {frames + further} frames take {needed / 1e9:.1f} GB of memory, more than '
        f'half of the {available / 1e9:.1f} GB that are available; take fewer'
    )


def differentiates_whole_network(skeleton: nn.Module, plan: Plan) -> bool:
    """Whether the action probe takes the whole network into memory at once."""
    if plan.probe.kind != 'action':
        return False
    small = sum(p.numel() for p in skeleton.parameters()) <= WHOLE_NETWORK_PARAMETERS
    return small or skeleton.config.head != 'l1'  # type: ignore[union-attr]


def check_memory(
    skeleton: nn.Module, calibration: CalibrationSet, plan: Plan, cache_bytes: int | None = None
) -> bool:
    """Refuse a calibration that the machine's memory cannot hold.

    Args:
        skeleton: the inference network on the meta device.
        calibration: its inputs.
        plan: what is asked for.
        cache_bytes: activations that may stay in memory; None for a part of what is available.

    Returns:
        Whether the activations between blocks must wait on disk.

    Raises:
        HbvlaError: more is needed than available; names the need and the way out.
    """
    available = available_bytes()
    need = needed_bytes(skeleton, calibration, plan)
    if available is None:
        return cache_bytes is not None and need.activations > cache_bytes
    limit = available // _CACHE_PART if cache_bytes is None else cache_bytes
    on_disk = need.activations > limit
    if plan.device.type != 'cpu':
        return on_disk
    working = need.working + (0 if on_disk else need.activations)
    if max(working, need.gradient) <= available:
        return on_disk
    way_out = 'add --probe block' if working <= available else 'leave out --calibration'
    raise HbvlaError(
        f'--calibration: needs about {max(working, need.gradient) / 1e9:.1f} GB of memory, '
        f'{available / 1e9:.1f} GB are available; {way_out}'
    )


def needed_bytes(skeleton: nn.Module, calibration: CalibrationSet, plan: Plan) -> MemoryNeed:
    """Estimate the largest use of memory; arguments as for :func:`check_memory`.

    Activations are measured: the network runs on tensors without memory.
    """
    chains = block_chains(skeleton)
    batch = max(calibration.batches, key=lambda one: len(one.pixel_values))
    inputs, outputs = _activations(skeleton, chains, batch)
    parts = calibration.frames / len(batch.pixel_values)
    inputs = [round(plan.dtype.itemsize * parts * elements) for elements in inputs]
    activations = sum(inputs)
    gradient = 0
    if differentiates_whole_network(skeleton, plan):
        parameters = sum(p.numel() for p in skeleton.parameters())
        gradient = _FLOAT * (parameters + _COPIES_IN_GRAPH * outputs)
    elif plan.probe.kind == 'action':
        # Backwards every block is run again, from the inputs it had.
        every = sum((len(chain) + 1) * size for chain, size in zip(chains, inputs, strict=True))
        activations = every + plan.probe.probes * max(inputs)
    return MemoryNeed(_working_bytes(skeleton, plan), activations, gradient)


def _working_bytes(skeleton: nn.Module, plan: Plan) -> int:
    """What :class:`MemoryNeed` calls working."""
    chains = block_chains(skeleton, plan.components)
    blocks = {block: names for chain in chains for block, names in chain}
    sizes = {block: _parameters(skeleton, block) for block in blocks}
    outside = sum(p.numel() for p in skeleton.parameters()) - sum(sizes.values())
    groups = {**blocks, **resident_linears(skeleton, plan.components)}
    # Layers of a block that share their inputs share a Hessian, unless tokens are weighted.
    kinds = 1 + int(plan.method.two_hessians)
    most = 0
    for group, names in groups.items():
        shapes = [tuple(skeleton.get_parameter(f'{name}.weight').shape) for name in names]
        hessians = kinds * sum(_FLOAT * columns**2 for _, columns in shapes)
        solver = max((_solver_bytes(rows, columns) for rows, columns in shapes), default=0)
        most = max(most, plan.dtype.itemsize * sizes.get(group, 0) + hessians + solver)
    return plan.dtype.itemsize * outside + most


def _solver_bytes(rows: int, columns: int) -> int:
    return _MATRICES_IN_SOLVER * _DOUBLE * columns**2 + _WEIGHTS_IN_SOLVER * _FLOAT * rows * columns


def _parameters(skeleton: nn.Module, block: str) -> int:
    return sum(p.numel() for p in skeleton.get_submodule(block).parameters())


def _activations(
    skeleton: nn.Module, chains: Sequence[Chain], batch: NetworkInputs
) -> tuple[list[int], int]:
    """Elements of one batch: inputs of the first block of each chain, outputs of all layers."""
    inputs, outputs = [0] * len(chains), 0
    handles = []

    def add_output(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    for number, chain in enumerate(chains):

        def add_input(_module: nn.Module, args: tuple[Tensor, ...], number: int = number) -> None:
            inputs[number] += args[0].numel()

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
