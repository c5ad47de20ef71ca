# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One quantization from plain values: what ``hbvla quantize`` and ``quantize_node`` both run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hbvla_ros.errors import HbvlaError

if TYPE_CHECKING:
    from hbvla_ros.quantization.calibration import CalibrationSet
    from hbvla_ros.quantization.progress import Progress
    from hbvla_ros.quantization.request import Request
    from hbvla_ros.vla.checkpoint import Checkpoint


class Cancelled(BaseException):
    """Raised by a progress object to end the pipeline; finished layers stay for a resume."""


@dataclass(frozen=True)
class Job:
    """What is asked for, as it comes from a command line or from node parameters.

    Attributes:
        checkpoint: full-precision folder.
        out: folder to write.
        method: name of the method.
        bits: sign planes or budget of stored bits; None for what the method stores by itself.
        preset: preset of the method.
        settings: options of the method as ``NAME=VALUE``.
        platform: platform name or file, None where the folder has its own.
        base: base model folder for a LoRA adapter.
        calibration: recorded episodes, from each of these places; none where there is none.
        robot: robot profile that names the topics of bags.
        instruction: task in words, for recordings that do not say theirs.
        frames: calibration frames.
        held_out: further frames, for the action error.
        probe: 'action', 'block' or 'none'.
        probe_settings: options of the probe as ``NAME=VALUE``.
        components: what is quantized.
        device: where it computes.
        dtype: type of the forward passes, 'float32' or 'bfloat16'.
        refine: steps of the refinement after quantization, 0 for none.
        refine_frames: frames it draws from; None for the calibration frames.
        refine_signs: whether it trains the signs as well.
        seed: seed of everything random.
        force: replace a deployed folder that is already there.
        resume: go on after the last finished layer of an interrupted run.
        cache_bytes: activations between two blocks that stay in memory, more go to disk; None
            for a quarter of what is available.
    """

    checkpoint: Path
    out: Path
    method: str = 'signplane'
    bits: float | None = None
    preset: str = 'default'
    settings: tuple[str, ...] = ()
    platform: str | None = None
    base: Path | None = None
    calibration: tuple[Path, ...] = ()
    robot: str | None = None
    instruction: str | None = None
    frames: int = 128
    held_out: int = 16
    probe: str = 'action'
    probe_settings: tuple[str, ...] = ()
    components: tuple[str, ...] = ('vision', 'language')
    device: str = 'cpu'
    dtype: str = 'float32'
    refine: int = 0
    refine_frames: int | None = None
    refine_signs: bool = False
    seed: int = 0
    force: bool = False
    resume: bool = False
    cache_bytes: int | None = None


def read_calibration(
    paths: Path | Sequence[Path],
    checkpoint: Checkpoint,
    frames: int,
    seed: int,
    held_out: int = 0,
    robot: str | None = None,
    instruction: str | None = None,
    refine_frames: int | None = None,
) -> CalibrationSet:
    """Open recorded episodes and draw calibration frames from them.

    Args:
        paths: recorded episodes of any kind, in one place or several, see
            :func:`hbvla_ros.recordings.open.open_recordings`.
        checkpoint: the policy they are for.
        frames: how many are drawn.
        seed: of the draw.
        held_out: how many further ones are kept apart.
        robot: robot profile that names the topics of bags; None for that of the policy's robot.
        instruction: task in words, for recordings that do not say theirs.
        refine_frames: how many the refinement draws from, the calibration frames among them.

    Raises:
        HbvlaError: nothing usable there, or it does not fit the policy.
    """
    from hbvla_ros.quantization.calibration import load_calibration
    from hbvla_ros.quantization.memory import check_frames
    from hbvla_ros.quantization.options import check_seed
    from hbvla_ros.recordings.open import open_recordings
    from hbvla_ros.recordings.recording import Given, Needs

    # Before recordings are read, which may take a while.
    check_seed(seed)
    check_frames(checkpoint, frames + held_out, max(0, (refine_frames or 0) - frames))
    platform = checkpoint.platform
    needs = Needs(platform.cameras, platform.proprio_dim, platform.robot)
    given = Given(robot, instruction or '')
    places = [paths] if isinstance(paths, Path) else paths
    recordings = [one for place in places for one in open_recordings(place, needs, given)]
    return load_calibration(
        recordings, checkpoint, frames, seed, held_out, refine_frames=refine_frames
    )


def run_job(job: Job, progress: Progress) -> str:
    """Check everything that can be checked at once, then calibrate, quantize and write.

    Args:
        job: what is asked for.
        progress: told what happens; may raise :class:`Cancelled`.

    Returns:
        One line on the folder that was written.

    Raises:
        HbvlaError: bad input of any kind; nothing half-written is left behind.
    """
    from hbvla_ros.packed.atomic import check_output
    from hbvla_ros.packed.manifest import MANIFEST_NAME
    from hbvla_ros.quantization.pipeline import quantize_checkpoint
    from hbvla_ros.quantization.report import result_files
    from hbvla_ros.quantization.resume import check_work_folder
    from hbvla_ros.vla.checkpoint import Checkpoint
    from hbvla_ros.vla.platform import resolve_platform

    check_output(job.out, job.force)
    check_work_folder(job.out, job.resume, job.force)
    request = _request(job)
    request.resolve()
    for flag, number, least in (('frames', job.frames, 1), ('held-out', job.held_out, 0)):
        if number < least:
            raise HbvlaError(f'--{flag} {number}: at least {least} is needed')
    if (job.checkpoint / MANIFEST_NAME).exists():
        raise HbvlaError(f'{job.checkpoint}: is quantized already; name the full-precision folder')
    platform = resolve_platform(job.checkpoint, job.platform)
    checkpoint = Checkpoint.open(job.checkpoint, platform, job.base)
    calibration = None
    if job.calibration:
        progress.stage('frames', 1)
        calibration = read_calibration(
            job.calibration,
            checkpoint,
            job.frames,
            job.seed,
            job.held_out,
            job.robot,
            job.instruction,
            job.refine_frames,
        )
        progress.step()
    result = quantize_checkpoint(
        checkpoint, request, job.out, calibration, progress, job.force, job.resume, result_files
    )
    manifest = result.manifest
    return (
        f'{job.out}: {len(manifest.layers)} layers at {manifest.stored_bits_per_weight:.4f} '
        'stored bits per weight'
    )


def _request(job: Job) -> Request:
    """The part of a job that does not depend on files."""
    from hbvla_ros.quantization.request import Request

    return Request(
        method=job.method,
        bits=job.bits,
        seed=job.seed,
        probe=job.probe,
        preset=job.preset,
        settings=job.settings,
        probe_settings=job.probe_settings,
        components=job.components,
        device=job.device,
        dtype=job.dtype,
        refine=job.refine,
        refine_frames=job.refine_frames,
        refine_signs=job.refine_signs,
        cache_bytes=job.cache_bytes,
    )
