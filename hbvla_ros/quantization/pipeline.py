# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From a full-precision checkpoint to a deployed folder, layer by layer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import nominal_bits_per_weight, stored_bits_per_weight
from hbvla_ros.packed.atomic import check_output
from hbvla_ros.packed.install import replace_linear
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import LayerEntry, Manifest
from hbvla_ros.packed.writer import write_folder
from hbvla_ros.quantization.budget import planes_for_budget
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.capture import BlockInputs
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.memory import check_memory
from hbvla_ros.quantization.options import MethodOptions, check_seed
from hbvla_ros.quantization.probe import TokenWeights, action_token_weights
from hbvla_ros.quantization.provenance import (
    copied_files,
    describe_calibration,
    describe_source,
)
from hbvla_ros.quantization.registry import Method, find_method
from hbvla_ros.quantization.targets import block_chains, quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty

PROBES = ('action', 'none')
_HUTCHINSON_PROBES = 4


class Progress(Protocol):
    """What a caller may want to see while it runs."""

    def stage(self, title: str, steps: int) -> None:
        """A new stage of so many steps begins."""

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """One step of the stage is done; a quantized layer comes with its entry."""


class SilentProgress:
    """Shows nothing."""

    def stage(self, title: str, steps: int) -> None:
        """Ignore it."""

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        method: name of the method.
        bits: whole number of sign planes, or budget of stored bits per weight.
        seed: seed of everything random.
        probe: 'action' weighs calibration tokens by the action gradient, 'none' does not.
        options: options of the method, None for its default preset; planes and seed are set from
            the above.
    """

    method: str = 'signplane'
    bits: float = 1.0
    seed: int = 0
    probe: str = 'action'
    options: MethodOptions | None = None


def quantize_checkpoint(
    checkpoint: Checkpoint,
    request: Request,
    out: Path,
    calibration: CalibrationSet | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Manifest:
    """Quantize a checkpoint and write the deployed folder.

    Without calibration one weight is in memory at a time; with it the whole network is.

    Args:
        checkpoint: opened full-precision folder.
        request: method, bits, seed.
        out: folder to write.
        calibration: inputs to measure the layers' Hessians on, or None.
        progress: told what happens.
        force: replace a deployed folder that is already there.

    Returns:
        The manifest of the folder.

    Raises:
        HbvlaError: impossible budget or seed, too little memory for the calibration, weights
            that are not finite, folder in the way.
    """
    check_output(out, force)
    if request.probe not in PROBES:
        raise HbvlaError(f'--probe {request.probe}: use one of {", ".join(PROBES)}')
    check_seed(request.seed)
    method = find_method(request.method)
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    names = quantized_linears(skeleton)
    shapes = {name: tuple(skeleton.get_parameter(f'{name}.weight').shape) for name in names}
    options = dataclasses.replace(
        request.options or method.preset('default'),
        seed=request.seed,
        planes=planes_for_budget(method, shapes, request.bits),  # type: ignore[call-arg,arg-type]
    )
    progress = progress or SilentProgress()
    if calibration is None:
        results = _without_calibration(checkpoint, names, method, options, progress)
    else:
        if request.probe == 'action':
            _check_differentiable(checkpoint)
        check_memory(skeleton, calibration, request.probe == 'action')
        results = _with_calibration(checkpoint, calibration, request, method, options, progress)
    layers: dict[str, QuantizedLayer] = {}
    entries: dict[str, LayerEntry] = {}
    for name, layer, entry in results:
        layers[name], entries[name] = layer, entry
        progress.step(name, entry)
    return write_folder(
        out,
        _manifest(checkpoint, request, options, calibration, entries),
        layers,
        _unquantized(checkpoint, skeleton, layers),
        copied_files(checkpoint.folders),
        {'platform.json': json.dumps(checkpoint.platform.to_json(), indent=2) + '\n'},
        force,
    )


def _manifest(
    checkpoint: Checkpoint,
    request: Request,
    options: MethodOptions,
    calibration: CalibrationSet | None,
    entries: dict[str, LayerEntry],
) -> Manifest:
    """The manifest but for the files, which the writer adds."""
    return Manifest(
        stored_bits_per_weight=stored_bits_per_weight(entries.values()),
        nominal_bits_per_weight=nominal_bits_per_weight(entries.values()),
        bits_asked=request.bits,
        method=request.method,
        options=dataclasses.asdict(options),
        seed=request.seed,
        calibration=describe_calibration(calibration, request.probe),
        source=describe_source(checkpoint.folders),
        layers=entries,
    )


def _without_calibration(
    checkpoint: Checkpoint,
    names: list[str],
    method: Method,
    options: MethodOptions,
    progress: Progress,
) -> Iterator[tuple[str, QuantizedLayer, LayerEntry]]:
    """Quantize one weight after the other; the network itself is never built."""
    progress.stage('quantizing', len(names))
    for name in names:
        weight = checkpoint.tensor(f'{name}.weight').float()
        yield name, *_quantize(name, weight, None, method, options)


def _with_calibration(
    checkpoint: Checkpoint,
    calibration: CalibrationSet,
    request: Request,
    method: Method,
    options: MethodOptions,
    progress: Progress,
) -> Iterator[tuple[str, QuantizedLayer, LayerEntry]]:
    """Quantize block by block, each on what the quantized blocks before it put out."""
    network = checkpoint.load_network(torch.float32, inference_only=True).requires_grad_(False)
    names = quantized_linears(network)
    token_weights: TokenWeights | None = None
    if request.probe == 'action':
        progress.stage('action gradients', len(calibration.batches))
        token_weights = action_token_weights(
            network, names, calibration.batches, _HUTCHINSON_PROBES, request.seed, progress.step
        )
    progress.stage('quantizing', len(names))
    for chain in block_chains(network):
        inputs = BlockInputs.record(network, chain[0][0], calibration.batches)
        for block, linears in chain:
            hessians = inputs.hessians(network, block, linears, token_weights)
            for name in linears:
                weight = network.get_parameter(f'{name}.weight').detach()
                layer, entry = _quantize(name, weight, hessians[name].mean(), method, options)
                replace_linear(network, name, layer, 'bf16', torch.float32)
                yield name, layer, entry
            inputs.advance(network, block)


def _quantize(
    name: str, weight: Tensor, hessian: Tensor | None, method: Method, options: MethodOptions
) -> tuple[QuantizedLayer, LayerEntry]:
    """One layer and its line in the manifest."""
    if not bool(torch.isfinite(weight).all()):
        raise HbvlaError(f'{name}.weight: holds NaN or infinity; the checkpoint is damaged')
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise HbvlaError(f'{name}: its calibration inputs are not finite; the weights overflow')
    layer = method.quantize(weight, hessian, options)
    rebuilt = layer.reconstruct()
    error = None if hessian is None else relative_error(weight, rebuilt, hessian)
    return layer, LayerEntry.of(layer, relative_error(weight, rebuilt), error)


def _unquantized(
    checkpoint: Checkpoint, skeleton: nn.Module, layers: dict[str, QuantizedLayer]
) -> dict[str, Tensor]:
    """All tensors of the inference network that no quantized layer replaces, in bfloat16."""
    replaced = {f'{name}.weight' for name in layers}
    return {
        name: checkpoint.tensor(name).to(torch.bfloat16)
        for name, _ in skeleton.named_parameters()
        if name not in replaced
    }


def _check_differentiable(checkpoint: Checkpoint) -> None:
    if checkpoint.config.head == 'discrete':
        raise HbvlaError(
            f'{checkpoint.folder}: discrete actions have no gradient; add --probe none'
        )
