# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A checkpoint folder of the smallest network and episodes for it, for tests of a policy."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tokenizers
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import models, pre_tokenizers, processors

from hbvla_ros.vla.config import LanguageConfig, NetworkConfig, TowerConfig
from hbvla_ros.vla.export import save_checkpoint
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import ALOHA

# The same examples in every run: a change fails because of itself, not of the draw, and not
# because the machine is slow.
settings.register_profile(
    'repeatable',
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile('repeatable')

# One thread each, in this process and in those it starts: on cores that have other work the
# threads of one small computation wait for each other in loops, for up to a hundred times as long.
os.environ.setdefault('OMP_NUM_THREADS', '1')
torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))

WORDS = ('<unk> <s> </s> <empty> In : What action should the robot take to ? Out put red green '
         'cube into bucket').split()  # fmt: skip
TINY_PLATFORM = dataclasses.replace(
    ALOHA, name='tiny', cameras=('cam_high', 'cam_low'), chunk=3, action_slots_per_step=2,
    resize=None,
)  # fmt: skip
TINY_CONFIG = NetworkConfig(
    featurizer=TowerConfig(16, 3, 2, 32, 16, (32, 32), 4, True, True, False),
    fused_featurizer=TowerConfig(24, 3, 4, 40, 16, (32, 32), 0, False, False, True),
    language=LanguageConfig(32, 48, 2, 4, 2, 128),
    empty_token_id=3,
    action_vocabulary=64,
)
TINY_STATISTICS = {
    'tiny': {
        'action': {'min': [-1.0] * 14, 'max': [2.0] * 14, 'mask': [True] * 14},
        'proprio': {'min': [-2.0] * 14, 'max': [2.0] * 14},
    }
}


def write_tokenizer(path: Path) -> None:
    """Whole words only, with a begin token in front as Llama's tokenizer puts it."""
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token='<unk>')
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
    )
    tokenizer.save(str(path))


def write_tiny_checkpoint(folder: Path, config=TINY_CONFIG, platform=TINY_PLATFORM) -> Path:
    """Save fresh random weights with everything a policy needs beside them."""
    torch.manual_seed(0)
    network = OpenVLANetwork(config, platform)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / 'source_tokenizer.json')
    save_checkpoint(
        network, folder, None, TINY_STATISTICS, platform,
        tokenizer=folder / 'source_tokenizer.json', step=7,
    )  # fmt: skip
    (folder / 'source_tokenizer.json').unlink()
    return folder


@pytest.fixture
def tiny_checkpoint(tmp_path) -> Path:
    """A folder of its own, so that a test may damage it."""
    return write_tiny_checkpoint(tmp_path / 'tiny')


@pytest.fixture
def make_tiny_checkpoint(tmp_path):
    """Write a tiny checkpoint with another network or platform: ``make(config=…, platform=…)``."""

    def make(name: str = 'tiny', config: dict | None = None, platform: dict | None = None) -> Path:
        return write_tiny_checkpoint(
            tmp_path / name,
            dataclasses.replace(TINY_CONFIG, **(config or {})),
            dataclasses.replace(TINY_PLATFORM, **(platform or {})),
        )

    return make


@pytest.fixture
def tiny_adapter(tmp_path):
    """Turn a full folder into the base of a new adapter folder, which this returns.

    What the two share (sizes, tokenizer, image constants) stays in the base alone.
    """

    def make(base: Path) -> Path:
        folder = tmp_path / 'run'
        (folder / 'lora_adapter').mkdir(parents=True)
        for name in ('dataset_statistics.json', 'platform.json'):
            (folder / name).write_bytes((base / name).read_bytes())
        for path in base.glob('*_checkpoint.pt'):
            path.rename(folder / path.name)
        generator = torch.Generator().manual_seed(3)
        module = 'base_model.model.language_model.model.layers.0.self_attn.q_proj'
        pair = {
            f'{module}.lora_{side}.weight': torch.randn(shape, generator=generator)
            for side, shape in (('A', (4, 32)), ('B', (32, 4)))
        }
        save_file(pair, folder / 'lora_adapter' / 'adapter_model.safetensors')
        (folder / 'lora_adapter' / 'adapter_config.json').write_text(
            json.dumps({'peft_type': 'LORA', 'r': 4, 'lora_alpha': 4})
        )
        return folder

    return make


def write_episodes(folder: Path, cameras: tuple[str, ...], episodes: int, frames: int) -> Path:
    """Episodes in the layout of ``hbvla demos``: blocky random images, two instructions."""
    random = np.random.default_rng(5)
    folder.mkdir(parents=True)
    for number in range(episodes):
        arrays: dict[str, NDArray[Any]] = {
            'proprioception': random.uniform(-2, 2, (frames, 14)).astype(np.float32),
            'instruction': np.array(['put the cube', 'put the red cube'][number % 2]),
        }
        for camera in cameras:
            images = random.integers(0, 256, (frames, 4, 4, 3), dtype=np.uint8)
            images = images.repeat(10, axis=1).repeat(10, axis=2)
            jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(image)) for image in images]
            arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(jpegs), dtype=np.uint8)
            lengths = [len(jpeg) for jpeg in jpegs]
            arrays[f'offset_{camera}'] = np.concatenate([[0], np.cumsum(lengths)])
        np.savez(folder / f'episode_{number}.npz', **arrays)
    return folder


@pytest.fixture
def episodes_folder(tmp_path: Path) -> Path:
    """Four recorded episodes of 12 frames that fit the tiny checkpoint."""
    return write_episodes(tmp_path / 'episodes', ('cam_high', 'cam_low'), 4, 12)
