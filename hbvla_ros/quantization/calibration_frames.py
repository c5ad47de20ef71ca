# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Frames of recorded episodes, as the deployed policy would show them to the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.sampling import Pick
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


class Frame(NamedTuple):
    """One usable frame as the network takes it.

    Attributes:
        pick: number of the recording, and of the observation in it.
        pixels: float32 (6 n, H, W).
        ids: tokens of the prompt.
        proprio: (P,) normalised, or None.
        instruction: the task.
        images: camera to uint8 (H, W, 3) RGB, as the towers see them.
    """

    pick: Pick
    pixels: NDArray[np.float32]
    ids: list[int]
    proprio: NDArray[Any] | None
    instruction: str
    images: dict[str, NDArray[np.uint8]]


class FrameLoader:
    """Reads frames and applies the transforms of the deployed policy (spec 1.1).

    Args:
        recordings: of the policy's robot, with its cameras.
        checkpoint: whose tokenizer, statistics, image constants and platform are used.

    Attributes:
        skipped: number of unusable frames so far.
        pipeline: the image steps of the deployed policy.
    """

    def __init__(self, recordings: Sequence[Recording], checkpoint: Checkpoint) -> None:
        """Read what the transforms need; raises HbvlaError where a file is wrong."""
        platform, config = checkpoint.platform, checkpoint.config
        self._recordings, self._platform, self._head = recordings, platform, config.head
        self.pipeline = ImagePipeline(
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

    def take(self, candidates: Iterator[Pick], count: int) -> list[Frame]:
        """The first usable frames of some candidates, in their order."""
        taken: list[Frame] = []
        while len(taken) < count:
            tried = list(islice(candidates, count - len(taken)))
            if not tried:
                break
            found = self._read(tried)
            taken += [found[pick] for pick in tried if pick in found]
        return taken

    def _read(self, picks: Sequence[Pick]) -> dict[Pick, Frame]:
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
        self.pipeline.check(observation.images)
        if self._platform.proprio_dim and not np.isfinite(observation.proprioception).all():
            return 'proprioception is not finite'
        for camera, image in observation.images.items():
            if int(image.max()) < _BLACK:
                return f'camera {camera} is black'
        return ''

    def _frame(self, pick: Pick, observation: Observation) -> Frame:
        proprio = None
        if self._platform.proprio_dim:
            proprio = self._normaliser.proprio(observation.proprioception)
        pipeline = self.pipeline
        # The steps of the pipeline's own call, which gives the last one alone.
        seen = {
            camera: pipeline.center_crop(pipeline.policy_resize(observation.images[camera]))
            for camera in self._platform.cameras
        }
        return Frame(
            pick,
            np.concatenate([pipeline.normalise(image) for image in seen.values()]),
            self._tokenizer(observation.instruction),
            proprio,
            observation.instruction,
            seen,
        )

    def batches(
        self, frames: Sequence[Frame], random: np.random.Generator
    ) -> tuple[list[NetworkInputs], dict[Pick, tuple[int, int]]]:
        """Batches of frames whose prompts have the same number of tokens.

        Returns:
            The batches, and the batch and row of each frame.
        """
        by_length: dict[int, list[Frame]] = {}
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

    def _batch(self, rows: Sequence[Frame], random: np.random.Generator) -> NetworkInputs:
        proprio, noise = None, None
        if self._platform.proprio_dim:
            values = [frame.proprio for frame in rows if frame.proprio is not None]
            proprio = torch.from_numpy(np.stack(values)).float()
        if self._head == 'diffusion':
            shape = (len(rows), self._platform.chunk, self._platform.action_dim)
            noise = torch.from_numpy(random.standard_normal(shape)).float()
        pixels = torch.from_numpy(np.stack([frame.pixels for frame in rows]))
        return NetworkInputs(pixels, torch.tensor([frame.ids for frame in rows]), proprio, noise)
