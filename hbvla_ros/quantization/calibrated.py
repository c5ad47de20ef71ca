# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Quantization with calibration: probe, budget, the pass through all blocks, the action error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.activations import ActivationCache
from hbvla_ros.quantization.block_quantizer import BlockQuantizer, LayerQuantizer
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.capture import BlockInputs
from hbvla_ros.quantization.forward_pass import ForwardPass, to_device
from hbvla_ros.quantization.memory import differentiates_whole_network
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.probe import TokenWeights
from hbvla_ros.quantization.probe_action import ActionImportance, action_importance
from hbvla_ros.quantization.probe_stream import streamed_action_importance
from hbvla_ros.quantization.progress import Progress
from hbvla_ros.quantization.request import Plan
from hbvla_ros.quantization.result import FrameImportance, action_error
from hbvla_ros.quantization.resume import WorkFolder
from hbvla_ros.quantization.sizes import Measured, share_budget
from hbvla_ros.quantization.stream import StreamedNetwork
from hbvla_ros.quantization.targets import block_chains, resident_linears
from hbvla_ros.quantization.token_types import decoder_token_types
from hbvla_ros.vla.checkpoint import Checkpoint


@dataclass(frozen=True)
class Outcome:
    """What a run found out besides the layers.

    Attributes:
        action_error: see :func:`~hbvla_ros.quantization.result.action_error`; None where there
            are no held-out frames.
        importance: token weights of the pictured frames.
        refinement: what stands of the refinement in the manifest; None where there was none.
    """

    action_error: dict[str, Any] | None = None
    importance: list[FrameImportance] = field(default_factory=list)
    refinement: dict[str, Any] | None = None


class CalibratedRun:
    """One run; every stage takes over what an interrupted run has finished of it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        calibration: CalibrationSet,
        plan: Plan,
        work: WorkFolder,
        progress: Progress,
        on_disk: bool,
    ) -> None:
        """Read what lies outside of the blocks.

        Args:
            checkpoint: opened full-precision folder.
            calibration: checked inputs.
            plan: what is asked for.
            work: takes what is finished.
            progress: told what happens.
            on_disk: keep activations in files.
        """
        self._checkpoint, self._calibration, self._plan = checkpoint, calibration, plan
        self._work, self._progress = work, progress
        self._stream = StreamedNetwork(checkpoint, plan.device, plan.dtype)
        self._cache = ActivationCache(work.path if on_disk else None, plan.device)
        network = self._stream.network
        self._outside = resident_linears(network, plan.components)
        self._linears = {
            block: names
            for chain in block_chains(network, plan.components)
            for block, names in chain
        } | self._outside
        self._types = [
            decoder_token_types(network, batch.input_ids.shape[1]) for batch in calibration.batches
        ]

    def quantize(self, names: Sequence[str]) -> Outcome:
        """Quantize all layers into the work folder.

        Args:
            names: all layers to quantize, in the order of the network.

        Raises:
            HbvlaError: bad input, or a refusing disk.
        """
        held_out = self._calibration.held_out
        wanted = self._full_precision_actions(held_out) if held_out else []
        importance = self._action_importance(names)
        weights = importance.weights if importance is not None else None
        shapes = {
            name: tuple(self._stream.network.get_parameter(f'{name}.weight').shape)
            for name in names
        }
        options = share_budget(
            self._plan,
            shapes,
            lambda add: self._show_all(add, importance),
            self._work,
            self._progress,
        )
        layers = LayerQuantizer(self._plan, options, self._work, self._progress)
        self._progress.stage('quantizing', len(names))
        self._visit(
            BlockQuantizer(
                self._stream,
                layers,
                self._linears,
                weights,
                [len(batch.pixel_values) for batch in self._calibration.batches],
                self._types,
                self._calibration.pictures,
            )
        )
        error = None
        if held_out:
            error = action_error(self._actions('quantized actions', held_out), wanted)
        return Outcome(error, self._frame_importance(names))

    def _visit(self, visit: Callable[[str, BlockInputs], None]) -> None:
        decoder = 'language' in self._plan.components or 'action_head' in self._outside
        ForwardPass(self._stream, self._calibration.batches, self._cache).visit(
            visit, list(self._outside), decoder
        )

    def _actions(self, title: str, batches: Sequence[NetworkInputs]) -> list[Tensor]:
        """Actions of the network as it is now."""
        schedule = self._stream.network.schedule
        passes = [1, 1, 1 if schedule is None else len(schedule.timesteps)]
        chains = self._stream.chains
        steps = sum(len(chain) * count for chain, count in zip(chains, passes, strict=True))
        self._progress.stage(title, steps)
        return ForwardPass(self._stream, batches, self._cache, self._progress.step).actions()

    def _full_precision_actions(self, batches: Sequence[NetworkInputs]) -> list[Tensor]:
        def make() -> dict[str, Tensor]:
            actions = self._actions('full-precision actions', batches)
            return {str(number): one for number, one in enumerate(actions)}

        kept = self._work.tensors('reference', make)
        return [kept[str(number)] for number in range(len(batches))]

    def _action_importance(self, names: Sequence[str]) -> ActionImportance | None:
        """What the action probe says, if it is asked."""
        if self._plan.probe.kind != 'action':
            return None
        return _unpack(self._work.tensors('importance', lambda: _pack(self._probe_actions(names))))

    def _probe_actions(self, names: Sequence[str]) -> ActionImportance:
        plan, batches = self._plan, self._calibration.batches
        on_device = [to_device(batch, plan.device) for batch in batches]
        if differentiates_whole_network(self._stream.network, plan):
            self._progress.stage('action gradients', len(batches))
            network = self._checkpoint.load_network(torch.float32, plan.device)
            return action_importance(
                network.requires_grad_(False), names, on_device, plan.probe, plan.options.seed,
                self._progress.step, self._types,
            )  # fmt: skip
        blocks = sum(len(chain) for chain in self._stream.chains)
        self._progress.stage('action gradients', 2 * blocks)
        return streamed_action_importance(
            self._stream, on_device, plan.probe, plan.options.seed, self._cache,
            self._progress.step, self._types,
            [name for layers in self._outside.values() for name in layers],
        )  # fmt: skip

    def _show_all(
        self, add: Callable[[Measured], None], importance: ActionImportance | None
    ) -> None:
        """Show every layer with its Hessian in the full-precision network."""
        costs = _costs(importance, [name for names in self._linears.values() for name in names])

        def visit(block: str, inputs: BlockInputs) -> None:
            names = self._linears.get(block, [])
            known = importance.weights if importance is not None else {}
            weights = {name: known[name] for name in names if name in known}
            plain = [name for name in names if name not in weights]
            network = self._stream.network
            totals = inputs.hessians(network, block, plain) if plain else {}
            if weights:
                totals |= inputs.hessians(network, block, list(weights), weights)
            for name in names:
                hessian = totals[name].mean()
                add(Measured(name, self._stream.weight(name), hessian, costs.get(name)))

        self._visit(visit)

    def _frame_importance(self, names: Sequence[str]) -> list[FrameImportance]:
        kept = [one for one in (self._work.importance(name) for name in names) if one]
        found = []
        for number, picture in enumerate(self._calibration.pictures if kept else ()):
            weights = torch.stack([one[str(number)] for one in kept]).mean(dim=0)
            found.append(FrameImportance.of(picture, weights, self._stream.network))
        return found


def check_differentiable(checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse the action probe where actions have no gradient.

    Raises:
        HbvlaError: the network has a head of discrete actions.
    """
    if plan.probe.kind == 'action' and checkpoint.config.head == 'discrete':
        raise HbvlaError(
            f'{checkpoint.folder}: discrete actions have no gradient; add --probe none or '
            '--probe block'
        )


def _costs(importance: ActionImportance | None, names: Sequence[str]) -> dict[str, float]:
    """What an output error ``tr(E H E^T)`` of each layer costs the actions.

    Empty if that is not known of all of them: costs are compared with each other.
    """
    if importance is None or any(name not in importance.sensitivity for name in names):
        return {}
    return importance.costs


def _pack(importance: ActionImportance) -> dict[str, Tensor]:
    """As tensors that can be written to a file."""
    packed = {
        f'weights {name} {number}': call
        for name, calls in importance.weights.items()
        for number, call in enumerate(calls)
    }
    for name, value in importance.sensitivity.items():
        figures = torch.tensor([value, importance.tokens[name]], dtype=torch.float64)
        packed[f'figures {name}'] = figures
    return packed


def _unpack(packed: dict[str, Tensor]) -> ActionImportance:
    weights: TokenWeights = {}
    sensitivity, tokens = {}, {}
    for key in sorted(packed, key=lambda key: (*key.split()[:2], int((key + ' 0').split()[2]))):
        kind, name = key.split()[:2]
        if kind == 'weights':
            weights.setdefault(name, []).append(packed[key])
        else:
            sensitivity[name], tokens[name] = packed[key].tolist()
    return ActionImportance(weights, sensitivity, tokens)
