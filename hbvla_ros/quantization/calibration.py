# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Calibration inputs from recorded episodes, made by the transforms of the deployed policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.options import check_seed
from hbvla_ros.quantization.sampling import Pick, draw_frames
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.tokens import PromptTokenizer

_BATCH = 8
# An image without a pixel brighter than this shows nothing: a covered lens or a dead camera.
_BLACK = 16


class Recording(Protocol):
    """What is needed of a recorded episode."""

    @property
    def name(self) -> str:
        """Name of its file or folder."""

    @property
    def kind(self) -> str:
        """What kind of recording it is, for the manifest."""

    def __len__(self) -> int:
        """Number of observations."""

    def observation(self, index: int) -> Observation:
        """One of them; raises HbvlaError where it is damaged."""

    def digest(self) -> str:
        """SHA-256 over its bytes."""

    def close(self) -> None:
        """Let go of memory and files; it may be used again."""


@dataclass(frozen=True)
class NetworkInputs:
    """One batch of what the network takes.

    Attributes:
        pixel_values: float32 (B, 6 n, H, W).
        input_ids: int64 (B, T).
        proprio: float32 (B, P) normalised, or None.
        noise: float32 (B, K, A), or None where the head needs none.
    """

    pixel_values: Tensor
    input_ids: Tensor
    proprio: Tensor | None
    noise: Tensor | None

    def arguments(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Arguments of the network's forward pass."""
        return self.pixel_values, self.input_ids, self.proprio, self.noise


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
    """

    batches: list[NetworkInputs]
    frames: int
    description: dict[str, Any]
    held_out: list[NetworkInputs] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def load_calibration(
    recordings: Sequence[Recording],
    checkpoint: Checkpoint,
    frames: int,
    seed: int,
    held_out: int = 0,
    pictures: int = 3,
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

    Raises:
        HbvlaError: negative seed or no usable frame.
    """
    check_seed(seed)
    # A stream of its own for the noise: it must not depend on how many frames were passed over.
    random, noise = (np.random.default_rng((seed, stream)) for stream in (0, 1))
    draw = draw_frames([len(one) for one in recordings], frames, held_out, random)
    loader = _Loader(recordings, checkpoint)
    chosen = loader.take(draw.calibration, draw.calibration_count)
    if not chosen:
        raise HbvlaError(f'calibration: no usable frame{loader.reason}; record episodes again')
    kept = loader.take(draw.held_out, draw.held_out_count)
    if held_out and not kept:
        raise HbvlaError(
            f'calibration: no usable frame is left to hold out{loader.reason}; record more '
            'episodes or hold out none'
        )
    batches, places = loader.batches(chosen, noise)
    shown = [
        Picture(*places[frame.pick], frame.instruction, frame.images) for frame in chosen[:pictures]
    ]
    description = {
        'digest': _digest(recordings, [f.pick for f in chosen], [f.pick for f in kept]),
        'source': ', '.join(sorted({one.kind for one in recordings})),
        'episodes': len({frame.pick[0] for frame in chosen}),
        'frames': len(chosen),
        'held_out_frames': len(kept),
        'held_out_episodes': ('other' if draw.separate else 'same') if kept else None,
        'seed': seed,
        'skipped': loader.skipped,
    }
    later, _ = loader.batches(kept, noise)
    return CalibrationSet(batches, len(chosen), description, later, shown)


class _Frame(NamedTuple):
    """One usable frame as the network takes it."""

    pick: Pick
    pixels: NDArray[np.float32]
    ids: list[int]
    proprio: NDArray[Any] | None
    instruction: str
    images: dict[str, NDArray[np.uint8]]


class _Loader:
    """Reads frames and applies the transforms of the deployed policy."""

    def __init__(self, recordings: Sequence[Recording], checkpoint: Checkpoint) -> None:
        platform, config = checkpoint.platform, checkpoint.config
        self._recordings, self._platform, self._head = recordings, platform, config.head
        self._pipeline = ImagePipeline(
            platform, Preprocessor.read(checkpoint.place_of('preprocessor_config.json'))
        )
        self._normaliser = Normaliser(checkpoint.statistics, platform)
        self._tokenizer = PromptTokenizer.read(
            checkpoint.place_of('tokenizer.json'),
            config.bos_token_id,
            config.empty_token_id,
            config.language.vocab_size,
        )
        self.skipped = 0
        self._first_fault = ''

    @property
    def reason(self) -> str:
        """Why the first unusable frame was passed over, to stand in brackets."""
        return f' ({self.skipped} unusable: {self._first_fault})' if self.skipped else ''

    def take(self, candidates: Iterator[Pick], count: int) -> list[_Frame]:
        """The first usable frames of some candidates, in their order."""
        taken: list[_Frame] = []
        while len(taken) < count:
            tried = list(islice(candidates, count - len(taken)))
            if not tried:
                break
            found = self._read(tried)
            taken += [found[pick] for pick in tried if pick in found]
        return taken

    def _read(self, picks: Sequence[Pick]) -> dict[Pick, _Frame]:
        """The usable ones, read episode by episode so that only one is open."""
        found = {}
        for number in sorted({number for number, _ in picks}):
            recording = self._recordings[number]
            for pick in sorted(pick for pick in picks if pick[0] == number):
                try:
                    observation = recording.observation(pick[1])
                    fault = self._fault(observation)
                except HbvlaError as error:
                    fault = str(error)
                if fault:
                    self.skipped += 1
                    self._first_fault = self._first_fault or f'{recording.name}: {fault}'
                else:
                    found[pick] = self._frame(pick, observation)
            recording.close()
        return found

    def _fault(self, observation: Observation) -> str:
        """What makes an observation unusable."""
        self._pipeline.check(observation.images)
        if self._platform.proprio_dim and not np.isfinite(observation.proprioception).all():
            return 'proprioception is not finite'
        for camera, image in observation.images.items():
            if int(image.max()) < _BLACK:
                return f'camera {camera} is black'
        return ''

    def _frame(self, pick: Pick, observation: Observation) -> _Frame:
        proprio = None
        if self._platform.proprio_dim:
            proprio = self._normaliser.proprio(observation.proprioception)
        pipeline = self._pipeline
        # The steps of the pipeline's own call, which gives the last one alone.
        seen = {
            camera: pipeline.center_crop(pipeline.policy_resize(observation.images[camera]))
            for camera in self._platform.cameras
        }
        return _Frame(
            pick,
            np.concatenate([pipeline.normalise(image) for image in seen.values()]),
            self._tokenizer(observation.instruction),
            proprio,
            observation.instruction,
            seen,
        )

    def batches(
        self, frames: Sequence[_Frame], random: np.random.Generator
    ) -> tuple[list[NetworkInputs], dict[Pick, tuple[int, int]]]:
        """Batches of frames whose prompts have the same number of tokens.

        Returns:
            The batches, and the batch and row of each frame.
        """
        by_length: dict[int, list[_Frame]] = {}
        for frame in sorted(frames, key=lambda frame: frame.pick):
            by_length.setdefault(len(frame.ids), []).append(frame)
        batches: list[NetworkInputs] = []
        places: dict[Pick, tuple[int, int]] = {}
        for _, group in sorted(by_length.items()):
            for start in range(0, len(group), _BATCH):
                rows = group[start : start + _BATCH]
                for sample, frame in enumerate(rows):
                    places[frame.pick] = (len(batches), sample)
                batches.append(self._batch(rows, random))
        return batches, places

    def _batch(self, rows: Sequence[_Frame], random: np.random.Generator) -> NetworkInputs:
        proprio, noise = None, None
        if self._platform.proprio_dim:
            values = [frame.proprio for frame in rows if frame.proprio is not None]
            proprio = torch.from_numpy(np.stack(values)).float()
        if self._head == 'diffusion':
            shape = (len(rows), self._platform.chunk, self._platform.action_dim)
            noise = torch.from_numpy(random.standard_normal(shape)).float()
        pixels = torch.from_numpy(np.stack([frame.pixels for frame in rows]))
        return NetworkInputs(pixels, torch.tensor([frame.ids for frame in rows]), proprio, noise)


def _digest(recordings: Sequence[Recording], *drawn: Sequence[Pick]) -> str:
    """SHA-256 over the names and bytes of the used episodes and over the drawn rows."""
    digest = hashlib.sha256()
    for number in sorted({number for picks in drawn for number, _ in picks}):
        digest.update(recordings[number].name.encode())
        digest.update(recordings[number].digest().encode())
    rows = [[(recordings[number].name, row) for number, row in sorted(picks)] for picks in drawn]
    digest.update(repr(rows).encode())
    return digest.hexdigest()
