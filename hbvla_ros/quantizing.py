# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One quantization from plain values: what ``hbvla quantize`` and ``quantize_node`` both run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hbvla_ros.quantization.calibration import CalibrationSet
    from hbvla_ros.quantization.progress import Progress
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
        calibration: recorded episodes, None for none.
        robot: robot profile that names the topics of bags.
        instruction: task in words, for recordings that do not say theirs.
        frames: calibration frames.
        held_out: further frames, for the action error.
        probe: 'action', 'block' or 'none'.
        probe_settings: options of the probe as ``NAME=VALUE``.
        components: what is quantized.
        device: where it computes.
        dtype: type of the forward passes, 'float32' or 'bfloat16'.
        seed: seed of everything random.
        force: replace a deployed folder that is already there.
        resume: go on after the last finished layer of an interrupted run.
    """

    checkpoint: Path
    out: Path
    method: str = 'signplane'
    bits: float | None = None
    preset: str = 'default'
    settings: tuple[str, ...] = ()
    platform: str | None = None
    base: Path | None = None
    calibration: Path | None = None
    robot: str | None = None
    instruction: str | None = None
    frames: int = 128
    held_out: int = 16
    probe: str = 'action'
    probe_settings: tuple[str, ...] = ()
    components: tuple[str, ...] = ('vision', 'language')
    device: str = 'cpu'
    dtype: str = 'float32'
    seed: int = 0
    force: bool = False
    resume: bool = False


def read_calibration(
    path: Path,
    checkpoint: Checkpoint,
    frames: int,
    seed: int,
    held_out: int = 0,
    robot: str | None = None,
    instruction: str | None = None,
) -> CalibrationSet:
    """Open recorded episodes and draw calibration frames from them.

    Args:
        path: recorded episodes of any kind, see :func:`hbvla_ros.recordings.open.open_recordings`.
        checkpoint: the policy they are for.
        frames: how many are drawn.
        seed: of the draw.
        held_out: how many further ones are kept apart.
        robot: robot profile that names the topics of bags; None for that of the policy's robot.
        instruction: task in words, for recordings that do not say theirs.

    Raises:
        HbvlaError: nothing usable there, or it does not fit the policy.
    """
    from hbvla_ros.quantization.calibration import load_calibration
    from hbvla_ros.quantization.options import check_seed
    from hbvla_ros.recordings.open import open_recordings
    from hbvla_ros.recordings.recording import Given, Needs

    # Before recordings are read, which may take a while.
    check_seed(seed)
    platform = checkpoint.platform
    needs = Needs(platform.cameras, platform.proprio_dim, platform.robot)
    recordings = open_recordings(path, needs, Given(robot, instruction or ''))
    return load_calibration(recordings, checkpoint, frames, seed, held_out)


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
    raise NotImplementedError
