# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The refinement as a stage of the pipeline: after all layers are finished, before writing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.install import replace_linear
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.forward_pass import to_device
from hbvla_ros.quantization.frame_store import FrameStore
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.memory import WHOLE_NETWORK_PARAMETERS
from hbvla_ros.quantization.progress import Progress
from hbvla_ros.quantization.refinable import float_scales, with_stored_scales
from hbvla_ros.quantization.refinement import FRAMES_PER_STEP, LEARNING_RATE, Refined, refine
from hbvla_ros.quantization.request import Plan
from hbvla_ros.quantization.result import action_error
from hbvla_ros.quantization.resume import WorkFolder
from hbvla_ros.quantization.sign_latents import SIGN_TENSORS, with_packed_signs
from hbvla_ros.vla.checkpoint import Checkpoint


def check_refinable(
    checkpoint: Checkpoint, skeleton: nn.Module, calibration: CalibrationSet | None, plan: Plan
) -> None:
    """Refuse a refinement that cannot be done, before anything else is.

    Raises:
        HbvlaError: negative steps, no calibration, a head without a plain action gradient, or a
            network too large to be differentiated as a whole.
    """
    if plan.refine < 0:
        raise HbvlaError(f'--refine {plan.refine}: must be 0 or more steps')
    if plan.refine_frames is not None and plan.refine_frames < 1:
        raise HbvlaError(f'--refine-frames {plan.refine_frames}: at least 1 is needed')
    if plan.refine == 0:
        for flag, given in (
            ('frames', plan.refine_frames is not None),
            ('signs', plan.refine_signs),
        ):
            if given:
                raise HbvlaError(f'--refine-{flag}: nothing is refined; add --refine STEPS')
        return
    if calibration is None:
        raise HbvlaError('--refine: needs --calibration')
    if checkpoint.config.head != 'l1':
        raise HbvlaError(
            f'{checkpoint.folder}: has a {checkpoint.config.head} head, --refine takes regression '
            'heads only; leave it out'
        )
    parameters = sum(p.numel() for p in skeleton.parameters())
    if parameters > WHOLE_NETWORK_PARAMETERS:
        raise HbvlaError(
            f'--refine: differentiates the whole network at once, and {parameters / 1e9:.1f} '
            f'billion parameters are more than {WHOLE_NETWORK_PARAMETERS / 1e9:g}; leave it out'
        )


def refine_finished(
    checkpoint: Checkpoint,
    calibration: CalibrationSet,
    plan: Plan,
    work: WorkFolder,
    progress: Progress,
    names: Sequence[str],
) -> Refined:
    """Refine the finished layers; kept in the work folder for a resume.

    Args:
        checkpoint: full-precision folder.
        calibration: its frames for the refinement are what the actions are compared on.
        plan: what is asked for.
        work: holds the finished layers.
        progress: told of every step.
        names: the quantized layers.
    """
    layers = {name: work.layer(name, plan.device) for name in names}
    store = _store(calibration)

    def make() -> dict[str, Tensor]:
        progress.stage('refining', plan.refine)
        network = checkpoint.load_network(torch.float32, plan.device)
        seed = plan.options.seed
        refined = refine(
            network, layers, store, plan.refine, seed, progress.step, plan.device, plan.refine_signs
        )
        kept = {f'tensor {name}': tensor for name, tensor in refined.tensors.items()}
        for name, layer in refined.layers.items():
            kept |= {f'scale {name} {key}': value for key, value in float_scales(layer).items()}
            kept |= {f'signs {name} {key}': value for key, value in _signs(layer).items()}
        return kept

    kept = {key: tensor.to(plan.device) for key, tensor in work.tensors('refined', make).items()}
    return Refined(
        {
            name: with_stored_scales(
                with_packed_signs(
                    layer, {key: kept[f'signs {name} {key}'] for key in _signs(layer)}
                ),
                {key: kept[f'scale {name} {key}'] for key in float_scales(layer)},
            )
            for name, layer in layers.items()
        },
        {
            key.removeprefix('tensor '): tensor
            for key, tensor in kept.items()
            if key.startswith('tensor ')
        },
    )


def refined_error(
    checkpoint: Checkpoint, calibration: CalibrationSet, plan: Plan, refined: Refined
) -> dict[str, Any] | None:
    """Action error of the refined network on the held-out frames; None without any.

    Args:
        checkpoint: full-precision folder.
        calibration: holds the frames.
        plan: what is asked for.
        refined: layers and tensors; the latter are rounded as they are stored.
    """
    if not calibration.held_out:
        return None
    batches = [to_device(batch, plan.device) for batch in calibration.held_out]
    network = checkpoint.load_network(torch.float32, plan.device)
    with torch.no_grad():
        wanted = [network(*batch.arguments()).cpu() for batch in batches]
        for name, layer in refined.layers.items():
            replace_linear(network, name, layer, 'bf16', torch.float32)
        stored = {name: t.to(torch.bfloat16).float() for name, t in refined.tensors.items()}
        network.load_state_dict(stored, strict=False)
        return action_error([network(*batch.arguments()).cpu() for batch in batches], wanted)


def refined_entries(
    checkpoint: Checkpoint, work: WorkFolder, refined: Refined
) -> dict[str, LayerEntry]:
    """Lines of the manifest; the error under the Hessian stays that of the layer by itself."""
    entries = {}
    for name, layer in refined.layers.items():
        rebuilt = layer.reconstruct()
        weight = checkpoint.tensor(f'{name}.weight').to(rebuilt)
        old = work.finished[name].entry
        entries[name] = dataclasses.replace(
            LayerEntry.of(layer, relative_error(weight, rebuilt), old.hessian_error),
            method_options=old.method_options,
        )
    return entries


def describe_refinement(
    plan: Plan, calibration: CalibrationSet, before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The refinement as it stands in the manifest; None where there was none."""
    if not plan.refine:
        return None
    error = None if before is None else before['relative_rms']
    return {
        'steps': plan.refine,
        'signs': plan.refine_signs,
        'learning_rate': LEARNING_RATE,
        'frames_per_step': FRAMES_PER_STEP,
        'frames': len(_store(calibration)),
        'relative_rms_before': error,
    }


def _store(calibration: CalibrationSet) -> FrameStore:
    """What the refinement draws from.

    Raises:
        HbvlaError: the calibration inputs are of no recordings.
    """
    if calibration.refinement is None:
        raise HbvlaError('--refine: needs calibration frames of recorded episodes')
    return calibration.refinement


def _signs(layer: QuantizedLayer) -> dict[str, Tensor]:
    """Packed signs of a layer that a refinement may change, by the names of their tensors."""
    return {name: part for name, part in layer.tensors().items() if name in SIGN_TENSORS}
