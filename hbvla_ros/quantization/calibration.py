# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Calibration inputs from recorded episodes, made by the transforms of the deployed policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.calibration_frames import FrameLoader, Recording
from hbvla_ros.quantization.frame_store import FrameStore
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.options import check_seed
from hbvla_ros.quantization.sampling import Pick, draw_frames
from hbvla_ros.vla.checkpoint import Checkpoint

# Frames for the refinement that are there as float32 at a time.
_PORTION = 256


@dataclass(frozen=True)
class Picture:
    """The images of one calibration frame, for maps of token importance over them.

    Token weights exist for calibration frames only, so it is one of those: sample ``sample`` of
    batch ``batch``. The images are as the towers see them, cropped and resized, so that a grid of
    patches covers them exactly.

    Attributes:
        batch: index into :attr:`CalibrationSet.batches`.
        sample: row of that batch.
        instruction: the frame's task.
        images: camera, in the network's order, to uint8 (H, W, 3) RGB.
    """

    batch: int
    sample: int
    instruction: str
    images: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class CalibrationSet:
    """Batches and where they came from.

    Attributes:
        batches: batches of equal prompt length.
        frames: number of frames in all batches.
        description: what stands in the manifest: digest over names, bytes and drawn rows, source
            (kind of recording), episodes, frames, held_out_frames, held_out_episodes ('other',
            'same' or None), seed, and skipped, the number of unusable frames that were passed over.
        held_out: batches of frames that are in none of ``batches``; none if none were asked for.
        pictures: of a few calibration frames, each of another episode where there are enough.
        refinement: what the refinement draws from: the calibration frames, and after them further
            ones of the same episodes. None where the batches are of no recordings.
    """

    batches: list[NetworkInputs]
    frames: int
    description: dict[str, Any]
    held_out: list[NetworkInputs] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    refinement: FrameStore | None = None


def load_calibration(
    recordings: Sequence[Recording],
    checkpoint: Checkpoint,
    frames: int,
    seed: int,
    held_out: int = 0,
    pictures: int = 3,
    refine_frames: int | None = None,
) -> CalibrationSet:
    """Draw frames of recorded episodes and turn them into network inputs (spec 1.1).

    A frame is unusable, and the next one takes its place, when it is damaged, when its
    proprioception is not finite, or when a camera is black.

    Args:
        recordings: of the policy's robot, with its cameras.
        checkpoint: whose tokenizer, statistics, image constants and platform are used.
        frames: how many frames, drawn without repetition; all of them if there are fewer.
        seed: seed of the draw and of the diffusion noise.
        held_out: how many further frames, of other episodes where possible.
        pictures: of how many calibration frames the images are kept.
        refine_frames: how many frames the refinement draws from, the calibration frames among
            them; fewer where there are not so many. None for these alone.

    Raises:
        HbvlaError: negative seed or no usable frame.
    """
    check_seed(seed)
    # A stream of its own for the noise: it must not depend on how many frames were passed over.
    random, noise = (np.random.default_rng((seed, stream)) for stream in (0, 1))
    draw = draw_frames([len(one) for one in recordings], frames, held_out, random)
    loader = FrameLoader(recordings, checkpoint)
    chosen = loader.take(draw.calibration, draw.calibration_count)
    if not chosen:
        raise HbvlaError(f'calibration: no usable frame{loader.reason}; record episodes again')
    kept = loader.take(draw.held_out, draw.held_out_count)
    if held_out and not kept:
        raise HbvlaError(
            f'calibration: no usable frame is left to hold out{loader.reason}; record more '
            'episodes or hold out none'
        )
    # After the held-out frames, which may come from the same episodes: these do not depend on it.
    store = FrameStore(loader.pipeline.normalise)
    store.add(chosen)
    further = _add_further(store, loader, draw.calibration, refine_frames or 0)
    batches, places = loader.batches(chosen, noise)
    shown = [
        Picture(*places[frame.pick], frame.instruction, frame.images) for frame in chosen[:pictures]
    ]
    parts = [[frame.pick for frame in part] for part in (chosen, kept)]
    if further:
        # Without them the digest is that of the other two alone.
        parts.append(further)
    description = {
        'digest': _digest(recordings, *parts),
        'source': ', '.join(sorted({one.kind for one in recordings})),
        'episodes': len({frame.pick[0] for frame in chosen}),
        'frames': len(chosen),
        'held_out_frames': len(kept),
        'held_out_episodes': ('other' if draw.separate else 'same') if kept else None,
        'seed': seed,
        'skipped': loader.skipped,
    }
    later, _ = loader.batches(kept, noise)
    return CalibrationSet(batches, len(chosen), description, later, shown, store)


def _add_further(
    store: FrameStore, loader: FrameLoader, candidates: Iterator[Pick], total: int
) -> list[Pick]:
    """Add frames until there are ``total`` or no more; says which.

    In portions: as they are read they take eight times as much as in the store.
    """
    picks: list[Pick] = []
    while len(store) < total:
        frames = loader.take(candidates, min(_PORTION, total - len(store)))
        if not frames:
            break
        store.add(frames)
        picks += [frame.pick for frame in frames]
    return picks


def _digest(recordings: Sequence[Recording], *drawn: Sequence[Pick]) -> str:
    """SHA-256 over the names and bytes of the used episodes and over the drawn rows."""
    digest = hashlib.sha256()
    for number in sorted({number for picks in drawn for number, _ in picks}):
        digest.update(recordings[number].name.encode())
        digest.update(recordings[number].digest().encode())
    rows = [[(recordings[number].name, row) for number, row in sorted(picks)] for picks in drawn]
    digest.update(repr(rows).encode())
    return digest.hexdigest()
