# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A synthetic layer and recorded episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray

from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> None:
    """These matrices are too small to share, and threads that wait for each other cost a lot."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def attention_layer() -> SyntheticLayer:
    """The ``attn_vo`` layer at half the spec's width, to be fast."""
    return make_layer('attn_vo', 512, 512, seed=1, tokens=4096)


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
