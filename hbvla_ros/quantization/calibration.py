# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Calibration inputs from recorded episodes, made by the transforms of the deployed policy."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.options import check_seed
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.platform import Platform
from hbvla_ros.vla.tokens import PromptTokenizer

_BATCH = 8


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
class CalibrationSet:
    """Batches and where they came from.

    Attributes:
        batches: batches of equal prompt length.
        frames: number of frames in all.
        description: what stands in the manifest: digest, episodes, frames, seed.
    """

    batches: list[NetworkInputs]
    frames: int
    description: dict[str, Any]


class EpisodeFile:
    """One simulator episode (``episode_*.npz``): JPEG frames, proprioception, instruction."""

    def __init__(self, path: Path, platform: Platform) -> None:
        """Check the keys; images are read when they are asked for.

        Raises:
            HbvlaError: not readable, or a camera or key is missing.
        """
        self.path = path
        self._arrays: dict[str, NDArray[Any]] = {}
        names = self._read()
        for camera in platform.cameras:
            for key in (f'jpeg_{camera}', f'offset_{camera}'):
                if key not in names:
                    raise HbvlaError(f'{path}: no {key}; the policy needs camera {camera}')
        for key in ('proprioception', 'instruction'):
            if key not in names:
                raise HbvlaError(f'{path}: no {key}; record the episode again')
        self._read('proprioception', 'instruction')
        width = self._arrays['proprioception'].shape[-1]
        if platform.proprio_dim and width != platform.proprio_dim:
            raise HbvlaError(
                f'{path}: proprioception has {width} values, the policy takes '
                f'{platform.proprio_dim}'
            )

    def _read(self, *keys: str) -> list[str]:
        """Read some arrays and return the names of all."""
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                for key in keys:
                    self._arrays[key] = arrays[key]
                return list(arrays.files)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise HbvlaError(f'{self.path}: not a readable episode; record it again') from error

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._arrays['proprioception'])

    @property
    def instruction(self) -> str:
        """What the operator asked for."""
        return str(self._arrays['instruction'])

    def proprioception(self, index: int) -> NDArray[np.float64]:
        """float64 (P,), not normalised."""
        return np.asarray(self._arrays['proprioception'][index], dtype=np.float64)

    def image(self, camera: str, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB.

        Raises:
            HbvlaError: the JPEG is damaged.
        """
        if f'jpeg_{camera}' not in self._arrays:
            self._read(f'jpeg_{camera}', f'offset_{camera}')
        begin, end = self._arrays[f'offset_{camera}'][index : index + 2]
        data = self._arrays[f'jpeg_{camera}'][int(begin) : int(end)].tobytes()
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, colorspace='RGB'))
        except ValueError as error:
            raise HbvlaError(f'{self.path}: frame {index} of {camera} is damaged') from error


def load_calibration(
    folder: Path, checkpoint: Checkpoint, frames: int, seed: int
) -> CalibrationSet:
    """Sample frames from a folder of episodes and turn them into network inputs.

    Args:
        folder: holds ``episode_*.npz``.
        checkpoint: whose tokenizer, statistics, image constants and platform are used.
        frames: how many frames, drawn without repetition; all of them if there are fewer.
        seed: seed of the draw and of the diffusion noise.

    Raises:
        HbvlaError: negative seed, no usable frame, or an episode that does not fit the policy.
    """
    check_seed(seed)
    if not folder.is_dir():
        raise HbvlaError(f'{folder}: no such folder; --calibration takes a folder of episodes')
    paths = sorted(folder.glob('episode_*.npz'))
    episodes = [EpisodeFile(path, checkpoint.platform) for path in paths]
    index = [(number, row) for number, ep in enumerate(episodes) for row in range(len(ep))]
    if not index:
        raise HbvlaError(f'{folder}: no usable frame; hbvla demos records episode_*.npz files')
    random = np.random.default_rng(seed)
    chosen = sorted(random.permutation(len(index))[:frames].tolist())
    picks = [index[position] for position in chosen]
    batches = list(_batches(picks, episodes, checkpoint, random))
    description = {
        'digest': _digest(paths, picks),
        'episodes': len({number for number, _ in picks}),
        'frames': len(picks),
        'seed': seed,
    }
    return CalibrationSet(batches, len(picks), description)


def _batches(
    picks: list[tuple[int, int]],
    episodes: list[EpisodeFile],
    checkpoint: Checkpoint,
    random: np.random.Generator,
) -> Iterator[NetworkInputs]:
    """Batches of frames whose prompts have the same number of tokens."""
    platform, config = checkpoint.platform, checkpoint.config
    pipeline = ImagePipeline(
        platform, Preprocessor.read(checkpoint.place_of('preprocessor_config.json'))
    )
    normaliser = Normaliser(checkpoint.statistics, platform)
    tokenizer = PromptTokenizer.read(
        checkpoint.place_of('tokenizer.json'),
        config.bos_token_id,
        config.empty_token_id,
        config.language.vocab_size,
    )
    by_length: dict[int, list[tuple[int, int]]] = {}
    for pick in picks:
        by_length.setdefault(len(tokenizer(episodes[pick[0]].instruction)), []).append(pick)
    for _, group in sorted(by_length.items()):
        for start in range(0, len(group), _BATCH):
            rows = [(episodes[number], row) for number, row in group[start : start + _BATCH]]
            pixels = [
                pipeline({camera: episode.image(camera, row) for camera in platform.cameras})
                for episode, row in rows
            ]
            ids = [tokenizer(episode.instruction) for episode, _ in rows]
            proprio, noise = None, None
            if platform.proprio_dim:
                values = [normaliser.proprio(ep.proprioception(row)) for ep, row in rows]
                proprio = torch.from_numpy(np.stack(values)).float()
            if config.head == 'diffusion':
                shape = (len(rows), platform.chunk, platform.action_dim)
                noise = torch.from_numpy(random.standard_normal(shape)).float()
            yield NetworkInputs(
                torch.from_numpy(np.stack(pixels)), torch.tensor(ids), proprio, noise
            )


def _digest(paths: list[Path], picks: list[tuple[int, int]]) -> str:
    """SHA-256 over the names and bytes of the used episodes and over the drawn rows."""
    digest = hashlib.sha256()
    for number in sorted({number for number, _ in picks}):
        digest.update(paths[number].name.encode())
        digest.update(hashlib.sha256(paths[number].read_bytes()).digest())
    digest.update(repr([(paths[number].name, row) for number, row in picks]).encode())
    return digest.hexdigest()
