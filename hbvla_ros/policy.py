# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A policy: observation in, action chunk out, from a full-precision or a deployed folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hbvla_ros.data import ActionChunk, Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.install import install_folder
from hbvla_ros.packed.manifest import MANIFEST_NAME
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.vla.checkpoint import Checkpoint, folder_identity
from hbvla_ros.vla.config import NetworkConfig, read_config
from hbvla_ros.vla.consistency import build_empty, check_platform, head_kind, uses_film
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.normalisation import Normaliser, read_statistics
from hbvla_ros.vla.platform import Platform, resolve_platform
from hbvla_ros.vla.tokens import PromptTokenizer

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Policy:
    """Transforms around a network; :meth:`load` builds it.

    Attributes:
        network: the network, full precision or with packed layers.
        platform: cameras, chunk and conventions.
        checkpoint: identity of the folder, carried by every chunk.
        images: camera frames to pixel values.
        tokenizer: instruction to token ids.
        normaliser: proprioception in, actions out.
        generator: source of the noise a diffusion head starts from.
    """

    network: OpenVLANetwork
    platform: Platform
    checkpoint: str
    images: ImagePipeline
    tokenizer: PromptTokenizer
    normaliser: Normaliser
    generator: torch.Generator

    @classmethod
    def load(
        cls,
        folder: PathLike,
        platform: Platform | PathLike | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = 'cpu',
        base: PathLike | None = None,
        residency: str = 'bf16',
        seed: int = 0,
    ) -> Policy:
        """Load a full-precision folder, or a deployed one (a folder with ``hbvla.json``).

        Args:
            folder: the checkpoint.
            platform: constants, or their name or file; None for the folder's platform.json.
            dtype: type the network computes in.
            device: where it computes, such as 'cpu' or 'cuda:0'.
            base: base model's folder where ``folder`` holds only a LoRA adapter.
            residency: how packed layers sit in memory (deployed folders only): 'packed', or
                'bf16', which means dequantized weights in ``dtype``, whichever that is.
            seed: seed of a diffusion head's noise.

        Raises:
            HbvlaError: anything wrong with the folder, in one line.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise HbvlaError(f'{folder}: no such checkpoint folder')
        check_device(device)
        if not isinstance(platform, Platform):
            platform = resolve_platform(folder, platform)
        if (folder / MANIFEST_NAME).is_file():
            network, statistics = _load_deployed(folder, platform, dtype, device, residency)
        else:
            checkpoint = Checkpoint.open(folder, platform, base)
            network = checkpoint.load_network(dtype, device)
            statistics = checkpoint.statistics
        config = network.config
        places = [folder] + ([Path(base)] if base is not None else [])
        tokenizer = PromptTokenizer.read(
            _folder_with('tokenizer.json', places),
            config.bos_token_id,
            config.empty_token_id,
            config.language.vocab_size,
        )
        preprocessor = Preprocessor.read(_folder_with('preprocessor_config.json', places))
        if preprocessor.size != config.image_size:
            raise HbvlaError(
                f'{folder}: preprocessor_config.json says {preprocessor.size} pixels, config.json '
                f'{config.image_size}'
            )
        return cls(
            network=network,
            platform=platform,
            checkpoint=folder_identity(folder),
            images=ImagePipeline(platform, preprocessor),
            tokenizer=tokenizer,
            normaliser=Normaliser(statistics, platform),
            generator=torch.Generator().manual_seed(seed),
        )

    def act(self, observation: Observation) -> ActionChunk:
        """One observation -> one chunk, its first row due at the observation's stamp.

        Raises:
            HbvlaError: wrong cameras, images, or proprioception.
        """
        return self.act_batch([observation])[0]

    def act_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """Several observations at once; those with prompts of equal length share a pass.

        Raises:
            HbvlaError: wrong cameras, images, or proprioception in any of them.
        """
        for observation in observations:
            self._check(observation)
        prompts = [self.tokenizer(observation.instruction) for observation in observations]
        chunks: dict[int, ActionChunk] = {}
        for length in {len(prompt) for prompt in prompts}:
            members = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
            actions = self._run(
                [observations[i] for i in members], torch.tensor([prompts[i] for i in members])
            )
            for index, rows in zip(members, actions, strict=True):
                chunks[index] = self._chunk(observations[index], rows)
        return [chunks[index] for index in range(len(observations))]

    def warmup(self) -> None:
        """Run once on a blank observation, so that the first real one is not slow."""
        height, width = self.images.preprocessor.size
        blank = np.zeros((2 * height, 2 * width, 3), dtype=np.uint8)
        self.act(
            Observation(
                images=dict.fromkeys(self.platform.cameras, blank),
                proprioception=np.zeros(self.platform.proprio_dim),
                instruction='stand still',
                stamp=0.0,
            )
        )

    @torch.inference_mode()
    def _run(
        self, observations: Sequence[Observation], input_ids: torch.Tensor
    ) -> NDArray[np.float64]:
        """Actions (B, K, A) in the robot's units, for prompts of one length."""
        device = self.network.projector.fc1.bias.device
        pixel_values = np.stack([self.images(observation.images) for observation in observations])
        proprio = None
        if self.platform.proprio_dim:
            rows = [self.normaliser.proprio(o.proprioception) for o in observations]
            proprio = torch.from_numpy(np.stack(rows)).float().to(device)
        noise = None
        if self.network.config.head == 'diffusion':
            size = (len(observations), self.platform.chunk, self.platform.action_dim)
            noise = torch.randn(size, generator=self.generator).to(device)
        actions = self.network(
            torch.from_numpy(pixel_values).to(device), input_ids.to(device), proprio, noise
        )
        return self.normaliser.robot_actions(actions.float().cpu().numpy())

    def _chunk(self, observation: Observation, actions: NDArray[np.float64]) -> ActionChunk:
        return ActionChunk(
            actions=actions,
            start=observation.stamp,
            step=self.platform.step,
            observation_stamp=observation.stamp,
            instruction=observation.instruction,
            checkpoint=self.checkpoint,
        )

    def _check(self, observation: Observation) -> None:
        """Raise HbvlaError if the observation does not fit the platform."""
        self.images.check(observation.images)
        wanted = self.platform.proprio_dim
        values = np.asarray(observation.proprioception)
        if wanted and values.shape != (wanted,):
            raise HbvlaError(
                f'proprioception: platform {self.platform.name!r} needs {wanted} values, got '
                f'shape {values.shape}'
            )
        if wanted and not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            raise HbvlaError(f'proprioception: value {index} is not finite')


def dtype_for(device: str | torch.device) -> torch.dtype:
    """The type to compute in on a device: bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if str(device).startswith('cuda') else torch.float32


def set_compute_threads(count: int) -> None:
    """Let every policy of this process compute with so many threads on the processor."""
    torch.set_num_threads(count)


@contextmanager
def compute_threads(count: int) -> Iterator[None]:
    """As :func:`set_compute_threads`, inside a ``with`` block only."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_device(device: str | torch.device) -> None:
    """Refuse a device that torch cannot compute on.

    Raises:
        HbvlaError: with torch's reason.
    """
    try:
        torch.empty(1, device=device).cpu()
    # What an absent device raises depends on its kind and on how torch was built.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HbvlaError(f'device {device}: not available here ({reason}); use cpu') from error


def device_memory(device: str | torch.device) -> int:
    """Bytes that tensors of this process take on a GPU."""
    return torch.cuda.memory_allocated(device)


def _load_deployed(
    folder: Path,
    platform: Platform,
    dtype: torch.dtype,
    device: str | torch.device,
    residency: str,
) -> tuple[OpenVLANetwork, Mapping[str, Any]]:
    """Network and statistics of a deployed folder."""
    packed = PackedFolder.open(folder)
    shapes = packed.shapes()
    config_json = read_config(folder)
    config = NetworkConfig.from_json(
        config_json,
        head=head_kind(shapes),
        film=uses_film(shapes),
        shapes=shapes,
        source=str(folder / 'config.json'),
    )
    check_platform(folder, config, platform, shapes)
    network = build_empty(config, platform)
    install_folder(network, packed, residency, dtype)
    return network.to(device).eval(), read_statistics(folder, config_json)


def _folder_with(name: str, places: Sequence[Path]) -> Path:
    """The first of the folders that holds a file, else the first one."""
    return next((place for place in places if (place / name).is_file()), places[0])
