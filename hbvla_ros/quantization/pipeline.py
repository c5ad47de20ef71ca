# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From a full-precision checkpoint to a deployed folder, layer by layer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import nominal_bits_per_weight, stored_bits_per_weight
from hbvla_ros.packed.atomic import check_output
from hbvla_ros.packed.manifest import Manifest
from hbvla_ros.packed.writer import write_folder
from hbvla_ros.quantization.block_quantizer import LayerQuantizer
from hbvla_ros.quantization.budget import check_network_bits
from hbvla_ros.quantization.calibrated import CalibratedRun, Outcome, check_differentiable
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.input_checks import check_calibration, check_weights
from hbvla_ros.quantization.memory import check_memory
from hbvla_ros.quantization.progress import Progress, SilentProgress
from hbvla_ros.quantization.provenance import copied_files, describe_calibration, describe_source
from hbvla_ros.quantization.refinement import Refined
from hbvla_ros.quantization.refinement_stage import (
    check_refinable,
    describe_refinement,
    refine_finished,
    refined_entries,
    refined_error,
)
from hbvla_ros.quantization.request import PROBES, Plan, Request
from hbvla_ros.quantization.result import QuantizationResult
from hbvla_ros.quantization.resume import WorkFolder, check_work_folder, work_folder
from hbvla_ros.quantization.sizes import Measured, share_budget
from hbvla_ros.quantization.targets import component_of_layer, quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty

__all__ = ['PROBES', 'Progress', 'Request', 'SilentProgress', 'quantize_checkpoint']

# From a result to the texts of further files, by name.
Report = Callable[[QuantizationResult], Mapping[str, str]]


def quantize_checkpoint(
    checkpoint: Checkpoint,
    request: Request,
    out: Path,
    calibration: CalibrationSet | None = None,
    progress: Progress | None = None,
    force: bool = False,
    resume: bool = False,
    report: Report | None = None,
) -> QuantizationResult:
    """Quantize a checkpoint and write the deployed folder.

    In memory at a time are: without calibration one weight; with it what lies outside the
    blocks, one block with its Hessians, and the activations of all frames in front of it, or
    files with these. Finished layers lie in ``<out>.partial`` until all are.

    Args:
        checkpoint: opened full-precision folder.
        request: what is asked for.
        out: folder to write.
        calibration: inputs to measure the layers' Hessians on, or None.
        progress: told what happens.
        force: replace a deployed folder that is already there, and begin anew.
        resume: go on after the last finished layer of an interrupted run; the folder will have
            the same bytes as if there had been no interruption.
        report: makes further files of the folder, which its manifest does not list.

    Returns:
        The manifest of the folder and what else was found out.

    Raises:
        HbvlaError: bad input of any kind, or a refusing disk; says the fix.
    """
    progress = progress or SilentProgress()
    check_output(out, force)
    check_work_folder(out, resume, force)
    task = _Task.checked(checkpoint, request, calibration)
    progress.stage('reading the checkpoint', 1)
    source = describe_source(checkpoint.folders)
    progress.step()
    description = {
        **task.plan.description(),
        'calibration': describe_calibration(calibration, task.plan.probe),
        'checkpoint': source,
    }
    with work_folder(out, description, resume, force) as work:
        check_weights(checkpoint, task.skeleton, progress)
        outcome, refined = _quantize(task, calibration, work, progress)
        manifest = _manifest(task, source, calibration, work, outcome, refined)
        result = QuantizationResult(
            manifest,
            {name: component_of_layer(name) or '' for name in task.names},
            {n: s for n in task.names if (s := work.finished[n].saliency) is not None},
            outcome.importance,
        )
        # All layers are there: what goes wrong from here on is no reason to lose them.
        work.keep_on_error = True
        written = write_folder(
            out,
            manifest,
            refined.layers if refined else {name: work.layer(name) for name in task.names},
            _unquantized(task) | (refined.tensors if refined else {}),
            copied_files(checkpoint.folders),
            {'platform.json': json.dumps(checkpoint.platform.to_json(), indent=2) + '\n'},
            force,
            report(result) if report is not None else None,
        )
    return dataclasses.replace(result, manifest=written)


@dataclass(frozen=True)
class _Task:
    """A request that fits a checkpoint.

    Attributes:
        checkpoint: opened full-precision folder.
        request: what is asked for.
        plan: the same, resolved.
        skeleton: the inference network on the meta device.
        names: layers to quantize, in the order of the network.
        on_disk: whether activations wait on disk.
    """

    checkpoint: Checkpoint
    request: Request
    plan: Plan
    skeleton: nn.Module
    names: list[str]
    on_disk: bool

    @staticmethod
    def checked(
        checkpoint: Checkpoint, request: Request, calibration: CalibrationSet | None
    ) -> _Task:
        """Check everything that takes no time.

        Raises:
            HbvlaError: bad input of any kind.
        """
        plan = request.resolve()
        if calibration is None and plan.method.needs_hessian:
            raise HbvlaError(f'--method {plan.method.name}: needs --calibration')
        skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
        names = quantized_linears(skeleton, plan.components)
        if not names:
            components = ','.join(plan.components)
            raise HbvlaError(f'--components {components}: this network has no such layers')
        shapes = {name: checkpoint.shape(f'{name}.weight') for name in names}
        check_network_bits(plan.method, plan.options, shapes, plan.bits)
        check_refinable(checkpoint, skeleton, calibration, plan)
        on_disk = False
        if calibration is not None:
            check_calibration(checkpoint, calibration)
            check_differentiable(checkpoint, plan)
            on_disk = check_memory(skeleton, calibration, plan, request.cache_bytes)
        return _Task(checkpoint, request, plan, skeleton, names, on_disk)


def _quantize(
    task: _Task, calibration: CalibrationSet | None, work: WorkFolder, progress: Progress
) -> tuple[Outcome, Refined | None]:
    """Quantize all layers into the work folder, then refine them if that is asked for."""
    checkpoint, plan, names = task.checkpoint, task.plan, task.names
    if calibration is None:
        return _without_calibration(checkpoint, names, plan, work, progress), None
    run = CalibratedRun(checkpoint, calibration, plan, work, progress, task.on_disk)
    outcome = run.quantize(names)
    if not plan.refine:
        return outcome, None
    refined = refine_finished(checkpoint, calibration, plan, work, progress, names)
    before = describe_refinement(plan, calibration, outcome.action_error)
    error = refined_error(checkpoint, calibration, plan, refined)
    return dataclasses.replace(outcome, action_error=error, refinement=before), refined


def _without_calibration(
    checkpoint: Checkpoint, names: list[str], plan: Plan, work: WorkFolder, progress: Progress
) -> Outcome:
    """Quantize one weight after the other; the network itself is never built."""

    def weight(name: str) -> Tensor:
        tensor = checkpoint.tensor(f'{name}.weight')
        return tensor.to(device=plan.device, dtype=torch.float32)

    def show_all(add: Callable[[Measured], None]) -> None:
        for name in names:
            add(Measured(name, weight(name)))

    shapes = {name: checkpoint.shape(f'{name}.weight') for name in names}
    options = share_budget(plan, shapes, show_all, work, progress)
    layers = LayerQuantizer(plan, options, work, progress)
    progress.stage('quantizing', len(names))
    for name in names:
        if name not in work.finished:
            layers.quantize(name, weight(name), None)
        layers.tell(name)
    return Outcome()


def _manifest(
    task: _Task,
    source: dict[str, Any],
    calibration: CalibrationSet | None,
    work: WorkFolder,
    outcome: Outcome,
    refined: Refined | None,
) -> Manifest:
    """The manifest but for the files, which the writer adds."""
    plan = task.plan
    entries = {name: work.finished[name].entry for name in task.names}
    if refined is not None:
        entries = refined_entries(task.checkpoint, work, refined)
    return Manifest(
        stored_bits_per_weight=stored_bits_per_weight(entries.values()),
        nominal_bits_per_weight=nominal_bits_per_weight(entries.values()),
        bits_asked=plan.bits,
        method=plan.method.name,
        options=dataclasses.asdict(plan.options),
        seed=task.request.seed,
        calibration=describe_calibration(calibration, plan.probe),
        source=source,
        layers=entries,
        preset=task.request.preset,
        components=list(plan.components),
        action_error=outcome.action_error,
        refinement=outcome.refinement,
    )


def _unquantized(task: _Task) -> dict[str, Tensor]:
    """All tensors of the inference network that no quantized layer replaces, in bfloat16."""
    replaced = {f'{name}.weight' for name in task.names}
    return {
        name: task.checkpoint.tensor(name).to(torch.bfloat16)
        for name, _ in task.skeleton.named_parameters()
        if name not in replaced
    }
