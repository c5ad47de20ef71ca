# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Synthetic layers with the statistics of real ones (spec section 6) and recorded episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class StructuredLayer:
    """Weight (d, m) and the input covariances of separate calibration and test draws (m, m)."""

    weight: Tensor
    calibration: Tensor
    test: Tensor

    def output_error(self, quantized: Tensor) -> float:
        """tr(E C E^T) / tr(W C W^T) on the test tokens."""
        error = self.weight - quantized
        return float(
            ((error @ self.test) * error).sum() / ((self.weight @ self.test) * self.weight).sum()
        )


class _Tokens:
    """A mixture of visual, text and action tokens with outlier channels and sinks."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size, self.generator = size, generator
        power, channel_sigma, outlier = 0.7, 0.4, 6.0
        spectrum = torch.arange(1, size + 1, dtype=torch.float32).pow(-power)
        self.roots = (spectrum / spectrum.mean()).sqrt()
        self.means = [std * self.normal(size) for std in (0.5, 0.5, 0.8)]
        self.rotations = [torch.linalg.qr(self.normal(size, size))[0] for _ in range(3)]
        self.gains = (channel_sigma * self.normal(size)).exp()
        self.outliers = torch.randperm(size, generator=generator)[: max(2, size // 256)]
        self.gains[self.outliers] *= outlier

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def covariance(self, count: int) -> Tensor:
        """(m, m) mean of x x^T over ``count`` fresh tokens."""
        parts = []
        for kind, share in enumerate((0.88, 0.07, 0.05)):
            number = int(share * count)
            part = (self.normal(number, self.size) * self.roots) @ self.rotations[kind].T
            parts.append(part + self.means[kind])
        sinks = torch.rand(len(parts[0]), generator=self.generator) < 0.004
        tokens = torch.cat(parts)
        tokens[: len(sinks)][sinks] *= 3.0
        tokens *= self.gains
        boosted = tokens[: len(sinks)]
        boosted[sinks.nonzero(), self.outliers] += 10.0 * self.gains[self.outliers]
        return tokens.T @ tokens / len(tokens)


def student_t(shape: tuple[int, int], degrees: int, generator: torch.Generator) -> Tensor:
    """Student-t noise of unit variance."""
    chi = torch.randn(degrees, *shape, generator=generator).square().mean(dim=0)
    noise = torch.randn(*shape, generator=generator) / chi.sqrt()
    return noise / noise.std()


def attention_value_output(size: int, tokens: int, seed: int) -> StructuredLayer:
    """The ``attn_vo`` layer: Gaussian plus 0.3 Student-t(8), rows and columns of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    source = _Tokens(size, generator)
    weight = source.normal(size, size) + 0.3 * student_t((size, size), 8, generator)
    weight *= (0.35 * source.normal(size, 1)).exp()
    weight *= (0.3 * source.normal(1, size)).exp() / source.gains.sqrt()
    weight *= 0.02 / weight.std()
    return StructuredLayer(weight, source.covariance(tokens), source.covariance(tokens))


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> None:
    """These matrices are too small to share, and threads that wait for each other cost a lot."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def attention_layer() -> StructuredLayer:
    """The ``attn_vo`` layer at half the spec's width, to be fast."""
    return attention_value_output(512, 4096, seed=1)


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
