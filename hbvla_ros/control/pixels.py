# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Rules that turn a camera message's pixels into RGB: one for the node and for recorded bags.

Messages are taken as they come, from rclpy or from a bag library: only their fields are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError

Pixels = NDArray[np.uint8]

# Channels of each raw encoding that is understood.
_CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}


def check_raw_image(message: Any) -> None:
    """Check the fields of a sensor_msgs/Image before anything reads its pixels.

    Raises:
        HbvlaError: an encoding that is not 8-bit colour or grey, or a size that does not fit.
    """
    if message.encoding not in _CHANNELS:
        raise HbvlaError(
            f'image encoding {message.encoding!r} is not one of {", ".join(_CHANNELS)}'
        )
    row = message.width * _CHANNELS[message.encoding]
    if message.step < row or len(message.data) != message.step * message.height or row == 0:
        raise HbvlaError(
            f'image of {message.width} x {message.height} {message.encoding} with step '
            f'{message.step} cannot have {len(message.data)} bytes'
        )


def without_padding(message: Any) -> Pixels | None:
    """Pixels (H, W, C) of a raw image whose rows are padded; None where they are not."""
    channels = _CHANNELS[message.encoding]
    row = message.width * channels
    if message.step == row:
        return None
    padded = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return padded[:, :row].reshape(message.height, message.width, channels)


def raw_to_rgb(image: Pixels, encoding: str) -> Pixels:
    """RGB (H, W, 3) of raw pixels (H, W) or (H, W, C) in a checked encoding."""
    if encoding == 'mono8':
        return _grey_to_rgb(image.reshape(image.shape[:2]))
    colours = image[..., :3]
    return np.ascontiguousarray(colours[..., ::-1] if encoding.startswith('bgr') else colours)


def compressed_to_rgb(image: Any, text: str) -> Pixels:
    """RGB (H, W, 3) of what an image decoder that gives BGR or grey made of a message.

    Args:
        image: the decoded image, None where the decoder failed.
        text: field ``format`` of the message.

    Raises:
        HbvlaError: not an 8-bit image.
    """
    if image is None or image.dtype != np.uint8:
        raise HbvlaError(f'compressed image ({text}) is not an 8-bit image')
    if image.ndim == 2:
        return _grey_to_rgb(image)
    # "rgb8; jpeg compressed rgb8": the sender took its RGB for OpenCV's BGR, so the decoder's
    # "BGR" is RGB already. Every other format string means an ordinary colour file.
    swapped = image if 'compressed rgb' in text else image[..., ::-1]
    return np.ascontiguousarray(swapped)


def _grey_to_rgb(image: Pixels) -> Pixels:
    return np.repeat(image[..., None], 3, axis=2)
