# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A checkpoint of OpenVLA-OFT's shapes with random weights, and episodes of noise to go with it.

For measurements of time and memory that need the real widths and no trained weights. Tensors go to
disk one at a time, so that the whole 7.5 billion parameters can be written on a small machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.config import LanguageConfig, NetworkConfig, TowerConfig
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.export import SIDE_MODULES, write_json, write_replacing
from hbvla_ros.vla.images import Preprocessor
from hbvla_ros.vla.platform import ALOHA, Platform
from hbvla_ros.vla.tokens import build_prompt

# Blocks of the real network; each tower has one more, which never runs.
DECODER_LAYERS = 32
TOWER_BLOCKS = (23, 26)
WIDTH_DIVISORS = (1, 2, 4, 8, 16, 32, 64)
INSTRUCTION = 'put the red cube into the pot'
_CAMERAS = (*ALOHA.cameras, 'cam_low')
# Elements drawn at a time.
_CHUNK = 2**24


@dataclass(frozen=True)
class RandomShape:
    """How much of the real network is built.

    Attributes:
        decoder_layers: layers of the decoder, 1 to 32.
        tower_blocks: blocks that run of each tower, at most 23 and 26 are.
        cameras: images of each frame, 1 to 4.
        width_divisor: widths are divided by it, a power of two up to 64.
    """

    decoder_layers: int = 2
    tower_blocks: int = 2
    cameras: int = 3
    width_divisor: int = 1

    def check(self) -> None:
        """Refuse what cannot be built.

        Raises:
            HbvlaError: a number out of its range, by the name of the flag.
        """
        for flag, number, most in (
            ('decoder-layers', self.decoder_layers, DECODER_LAYERS),
            ('tower-blocks', self.tower_blocks, max(TOWER_BLOCKS)),
            ('cameras', self.cameras, len(_CAMERAS)),
        ):
            if not 1 <= number <= most:
                raise HbvlaError(f'--{flag} {number}: use 1 to {most}')
        if self.width_divisor not in WIDTH_DIVISORS:
            known = ', '.join(str(divisor) for divisor in WIDTH_DIVISORS)
            raise HbvlaError(f'--width-divisor {self.width_divisor}: use one of {known}')

    @property
    def platform(self) -> Platform:
        """ALOHA's constants, with that many cameras."""
        return dataclasses.replace(ALOHA, name='random', cameras=_CAMERAS[: self.cameras])

    @property
    def config(self) -> NetworkConfig:
        """Configuration of the network (spec openvla_oft, 1.2 and 1.4)."""
        divisor = self.width_divisor
        dino, siglip = (min(self.tower_blocks, most) + 1 for most in TOWER_BLOCKS)
        heads = max(1, 16 // divisor)
        image = (224, 224)
        return NetworkConfig(
            featurizer=TowerConfig(
                1024 // divisor, dino, heads, 4096 // divisor, 14, image, 4, True, True, False
            ),
            fused_featurizer=TowerConfig(
                1152 // divisor, siglip, heads, 4304 // divisor, 14, image, 0, False, False, True
            ),
            language=LanguageConfig(
                hidden_size=4096 // divisor,
                intermediate_size=11008 // divisor,
                num_hidden_layers=self.decoder_layers,
                num_attention_heads=max(1, 32 // divisor),
                num_key_value_heads=max(1, 32 // divisor),
                vocab_size=32064,
            ),
        )


def write_random_checkpoint(folder: Path, shape: RandomShape, seed: int = 0) -> Path:
    """Write a folder in the Hugging Face layout with weights that keep activations in range.

    Args:
        folder: where to; made, must not exist.
        shape: how much of the network.
        seed: of the weights; same seed, same bytes.

    Returns:
        The folder.

    Raises:
        HbvlaError: impossible shape, or the disk refuses.
    """
    shape.check()
    config, platform = shape.config, shape.platform
    network = build_empty(config, platform, inference_only=False)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    try:
        folder.mkdir(parents=True)
        sides = {module: _take(shapes, f'{module}.') for module in SIDE_MODULES}
        _write_safetensors(folder / 'model.safetensors', shapes, generator)
        for module, parts in sides.items():
            if parts:
                kind = torch.bfloat16 if module == 'action_head' else torch.float32
                _write_side_file(folder / f'{module}--0_checkpoint.pt', parts, kind, generator)
        write_json(folder / 'config.json', config.to_json())
        write_json(folder / 'dataset_statistics.json', _statistics(platform))
        write_json(folder / 'preprocessor_config.json', Preprocessor(config.image_size).to_json())
        _write_tokenizer(folder / 'tokenizer.json')
        platform.write(folder / 'platform.json')
    except OSError as error:
        raise HbvlaError(
            f'{folder}: cannot write it: {error.strerror or error}; set TMPDIR to a folder with '
            'more space'
        ) from error
    return folder


def _take(shapes: dict[str, tuple[int, ...]], prefix: str) -> dict[str, tuple[int, ...]]:
    """Remove the tensors of one module and return them without its prefix."""
    names = [name for name in shapes if name.startswith(prefix)]
    return {name.removeprefix(prefix): shapes.pop(name) for name in names}


def _write_safetensors(
    path: Path, shapes: dict[str, tuple[int, ...]], generator: torch.Generator
) -> None:
    """Header first, then one bfloat16 tensor after the other."""
    header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {'dtype': 'BF16', 'shape': list(shape), 'data_offsets': [start, end]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)

    def write(target: Path) -> None:
        with target.open('wb') as stream:
            stream.write(len(text).to_bytes(8, 'little') + text)
            for name, shape in shapes.items():
                for part in _values(name, shape, generator):
                    stream.write(part.to(torch.bfloat16).view(torch.uint8).numpy().data)

    write_replacing(path, write)


def _write_side_file(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    kind: torch.dtype,
    generator: torch.Generator,
) -> None:
    """A state dict as distributed training leaves it."""
    tensors = {}
    for name, shape in shapes.items():
        parts = [part.to(kind) for part in _values(name, shape, generator)]
        tensors[f'module.{name}'] = torch.cat(parts).reshape(shape)
    write_replacing(path, lambda target: torch.save(tensors, target))


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Iterator[Tensor]:
    """Values of a tensor, flat and in float32, a part at a time.

    Matrices have a spread of one over the square root of their inputs, gains are 1, layer scales
    a half, biases 0; what is added to activations is small.
    """
    count = math.prod(shape)
    leaf = name.rpartition('.')[2]
    constant = {'bias': 0.0, 'scale_factor': 0.5}.get(leaf, 1.0 if len(shape) == 1 else None)
    spread = 0.02
    if leaf == 'weight' and 'embed_tokens' not in name and len(shape) > 1:
        spread = math.prod(shape[1:]) ** -0.5
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        if constant is not None:
            yield torch.full((size,), constant)
        else:
            yield spread * torch.randn(size, generator=generator)


def _statistics(platform: Platform) -> dict[str, Any]:
    """Joints between -2 and 2, actions between -1 and 1."""
    width, joints = platform.action_dim, platform.proprio_dim
    return {
        'random': {
            'action': {'min': [-1.0] * width, 'max': [1.0] * width, 'mask': [True] * width},
            'proprio': {'min': [-2.0] * joints, 'max': [2.0] * joints},
        }
    }


def _write_tokenizer(path: Path) -> None:
    """The words of the prompt, a begin token in front."""
    words = pre_tokenizers.Whitespace().pre_tokenize_str(build_prompt(INSTRUCTION))
    names = dict.fromkeys(['<unk>', '<s>', '</s>', *(word for word, _ in words)])
    vocabulary = {word: number for number, word in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
    )
    tokenizer.save(str(path))


class RandomRecording:
    """An episode of smooth random images and joint positions drawn at random.

    Attributes:
        name: for the manifest.
        kind: the same.
    """

    name = 'random'
    kind = 'random'

    def __init__(self, platform: Platform, frames: int, seed: int = 0) -> None:
        """Draw nothing yet.

        Args:
            platform: says which cameras and how many joints.
            frames: number of observations.
            seed: of everything in them.
        """
        self._platform, self._frames, self._seed = platform, frames, seed

    def __len__(self) -> int:
        """Number of observations."""
        return self._frames

    def observation(self, index: int) -> Observation:
        """The same one for the same index."""
        random = np.random.default_rng((self._seed, index))
        images = {camera: _smooth_image(random) for camera in self._platform.cameras}
        joints = random.uniform(-2, 2, self._platform.proprio_dim)
        return Observation(images, joints, INSTRUCTION, float(index))

    def digest(self) -> str:
        """Over what decides the content."""
        described = (self._platform.cameras, self._platform.proprio_dim, self._frames, self._seed)
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def close(self) -> None:
        """There is nothing to close."""


def _smooth_image(random: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (480, 640, 3): a few coarse colours that flow into each other."""
    coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, 8, 8))).float()
    fine = torch.nn.functional.interpolate(coarse, (480, 640), mode='bicubic')
    return fine[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).contiguous().numpy()
