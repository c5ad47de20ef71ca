# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The image pipeline: camera frames in, network input out (spec section 3)."""

from __future__ import annotations

import functools
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.platform import Platform

JPEG_QUALITY = 95
CROP_AREA = 0.9
# The checkpoints were trained with these constants rounded to bfloat16.
DINO_MEAN = (0.484375, 0.455078125, 0.40625)
DINO_STD = (0.228515625, 0.2236328125, 0.224609375)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessor:
    """Size and normalisation of the network's input.

    Attributes:
        size: (height, width).
        means: per tower, three channel means of images scaled to 0..1.
        stds: per tower, three channel deviations.
    """

    size: tuple[int, int]
    means: tuple[tuple[float, ...], ...] = (DINO_MEAN, SIGLIP_MEAN)
    stds: tuple[tuple[float, ...], ...] = (DINO_STD, SIGLIP_STD)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Preprocessor:
        """Read preprocessor_config.json; only its ``tvf_normalize_params`` are right.

        Raises:
            HbvlaError: the file is missing, not readable, or lacks a key.
        """
        path = Path(folder) / 'preprocessor_config.json'
        try:
            values = json.loads(path.read_text(encoding='utf-8'))
            normalise = values['tvf_normalize_params']
            height, width = values['input_sizes'][0][-2:]
            means = tuple(tuple(float(x) for x in entry['mean']) for entry in normalise)
            stds = tuple(tuple(float(x) for x in entry['std']) for entry in normalise)
        except FileNotFoundError:
            raise HbvlaError(f'{path}: missing; copy it from the trained checkpoint') from None
        except KeyError as error:
            raise HbvlaError(f'{path}: key {error.args[0]!r} is missing') from None
        except (OSError, ValueError, TypeError, IndexError) as error:
            raise HbvlaError(f'{path}: not a readable preprocessor file ({error})') from None
        if [len(row) for row in means + stds] != [3, 3, 3, 3]:
            raise HbvlaError(f'{path}: tvf_normalize_params must hold 3 channels of 2 towers')
        return cls((int(height), int(width)), means, stds)

    def to_json(self) -> dict[str, Any]:
        """Content of a preprocessor_config.json that :meth:`read` reads."""
        size = list(self.size)
        return {
            'image_processor_type': 'PrismaticImageProcessor',
            'image_resize_strategy': 'resize-naive',
            'use_fused_vision_backbone': True,
            'input_sizes': [[3, *size], [3, *size]],
            'interpolations': ['bicubic', 'bicubic'],
            'means': [list(row) for row in self.means],
            'stds': [list(row) for row in self.stds],
            'tvf_crop_params': [{'output_size': size}] * 2,
            'tvf_normalize_params': [
                {'inplace': False, 'mean': list(mean), 'std': list(std)}
                for mean, std in zip(self.means, self.stds, strict=True)
            ],
            'tvf_resize_params': [
                {'antialias': True, 'interpolation': 3, 'max_size': None, 'size': size}
            ]
            * 2,
        }


def rotate_180(image: Pixels) -> Pixels:
    """Turn an image by 180 degrees: (H, W, 3) -> (H, W, 3)."""
    return np.ascontiguousarray(image[::-1, ::-1])


def bicubic_resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Pillow's bicubic resize to (height, width); the aspect ratio is not kept."""
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def jpeg_round_trip(image: Pixels) -> Pixels:
    """Encode and decode once, with the quality and the fast inverse transform of the training.

    Quality 95 and 4:2:0 chroma; an accurate inverse transform differs by up to 15 levels.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format='JPEG', quality=JPEG_QUALITY, subsampling=2)
    decoded = simplejpeg.decode_jpeg(buffer.getvalue(), fastdct=True, fastupsample=False)
    return np.asarray(decoded)


@functools.lru_cache(maxsize=32)
def lanczos_weights(source: int, target: int) -> NDArray[np.float32]:
    """Rows of normalised lanczos3 weights (target, source), widened when shrinking."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    distance = (np.arange(source) + 0.5 - centres[:, None]) / max(scale, 1.0)
    kernel = np.sinc(distance) * np.sinc(distance / 3)
    kernel[np.abs(distance) >= 3] = 0.0
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)


def lanczos_resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Antialiased lanczos3 in float without intermediate rounding, rounded half to even."""
    rows = lanczos_weights(image.shape[0], size[0])
    columns = lanczos_weights(image.shape[1], size[1])
    tall = np.tensordot(rows, image.astype(np.float32), axes=(1, 0))
    resized = np.einsum('hwc,ow->hoc', tall, columns, optimize=True)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _corner_samples(length: int, target: int) -> tuple[Any, Any, Any]:
    """Lower and upper index and float32 weight of corner-aligned samples of the central part."""
    side = np.float32(math.sqrt(CROP_AREA))
    offset = (np.float32(1) - side) / np.float32(2)
    far = offset + side
    step = (far - offset) * np.float32(length - 1) / np.float32(max(target - 1, 1))
    position = offset * np.float32(length - 1) + np.arange(target, dtype=np.float32) * step
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    return low, high, (position - low).astype(np.float32)


def center_crop(image: Pixels) -> Pixels:
    """The central 0.9 of the area, resampled to the same size: uint8 (H, W, 3) -> the same.

    Bilinear with corner-aligned coordinates; back to uint8 by truncating x * 255.5.
    """
    values = image.astype(np.float32) * np.float32(1 / 255)
    top, bottom, down = _corner_samples(image.shape[0], image.shape[0])
    left, right, across = _corner_samples(image.shape[1], image.shape[1])
    down, across = down[:, None, None], across[None, :, None]
    upper_row, lower_row = values[top], values[bottom]
    upper = upper_row[:, left] + (upper_row[:, right] - upper_row[:, left]) * across
    lower = lower_row[:, left] + (lower_row[:, right] - lower_row[:, left]) * across
    mixed = np.clip(upper + (lower - upper) * down, 0, 1)
    return (mixed * np.float32(255.5)).astype(np.uint8)


class ImagePipeline:
    """From the cameras' frames to pixel values, for one platform."""

    def __init__(self, platform: Platform, preprocessor: Preprocessor) -> None:
        self.platform, self.preprocessor = platform, preprocessor
        self._mean = np.array(preprocessor.means, dtype=np.float32).reshape(2, 3, 1, 1)
        self._std = np.array(preprocessor.stds, dtype=np.float32).reshape(2, 3, 1, 1)

    def policy_resize(self, image: Pixels) -> Pixels:
        """Camera frame -> uint8 (H, W, 3) of the network's size.

        Rotation, platform resize, JPEG round trip and lanczos as the platform says. A frame that
        already has the network's size is taken to be resized (spec section 3.2).
        """
        if self.platform.rotate_180:
            image = rotate_180(image)
        if image.shape[:2] == self.preprocessor.size:
            return image
        if self.platform.resize is not None:
            image = bicubic_resize(image, self.platform.resize)
        if self.platform.jpeg_round_trip:
            image = jpeg_round_trip(image)
        return lanczos_resize(image, self.preprocessor.size)

    def center_crop(self, image: Pixels) -> Pixels:
        """The central 0.9 of the area where the platform crops, else the image itself."""
        return center_crop(image) if self.platform.center_crop else image

    def normalise(self, image: Pixels) -> NDArray[np.float32]:
        """uint8 (H, W, 3) -> float32 (6, H, W): DINOv2 channels, then SigLIP channels."""
        values = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        both = (values - self._mean) / self._std
        return both.reshape(6, *image.shape[:2])

    def __call__(self, images: Mapping[str, Pixels]) -> NDArray[np.float32]:
        """All cameras -> float32 (6 n, H, W) in the platform's order.

        Raises:
            HbvlaError: wrong set of cameras, or a frame that is not uint8 (H, W, 3).
        """
        self.check(images)
        return np.concatenate(
            [
                self.normalise(self.center_crop(self.policy_resize(images[camera])))
                for camera in self.platform.cameras
            ]
        )

    def check(self, images: Mapping[str, Pixels]) -> None:
        """Raise HbvlaError unless exactly the platform's cameras are there, each uint8 RGB."""
        wanted = self.platform.cameras
        if set(images) != set(wanted):
            raise HbvlaError(
                f'the policy takes {len(wanted)} cameras ({", ".join(wanted)}), '
                f'got {len(images)} ({", ".join(images)})'
            )
        for camera in wanted:
            image = images[camera]
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise HbvlaError(
                    f'camera {camera!r}: need uint8 of shape (H, W, 3), '
                    f'got {image.dtype} {image.shape}'
                )
