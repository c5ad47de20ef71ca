# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Rules that turn a camera message's pixels into RGB: one for the node and for recorded bags.

Messages are taken as they come, from rclpy or from a bag library: only their fields are used.
The order of colours is what the message says, unless the camera's profile says otherwise
(``cameras[].encoding``): drivers have been seen to name it wrongly, and to change it between two
releases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError

Pixels = NDArray[np.uint8]

# Channels of each raw encoding that is understood. 8UC3 and 8UC4 are numbers without an order.
_CHANNELS = {
    'rgb8': 3,
    'bgr8': 3,
    'rgba8': 4,
    'bgra8': 4,
    '8UC3': 3,
    '8UC4': 4,
    'mono8': 1,
    '8UC1': 1,
    'yuv422': 2,
    'uyvy': 2,
    'yuv422_yuy2': 2,
    'yuyv': 2,
    'bayer_rggb8': 1,
    'bayer_bggr8': 1,
    'bayer_gbrg8': 1,
    'bayer_grbg8': 1,
}
# OpenCV names a Bayer pattern by its second row, ROS by its first.
_CONVERSIONS = {
    'yuv422': 'COLOR_YUV2RGB_UYVY',
    'uyvy': 'COLOR_YUV2RGB_UYVY',
    'yuv422_yuy2': 'COLOR_YUV2RGB_YUY2',
    'yuyv': 'COLOR_YUV2RGB_YUY2',
    'bayer_rggb8': 'COLOR_BayerBG2RGB',
    'bayer_bggr8': 'COLOR_BayerRG2RGB',
    'bayer_gbrg8': 'COLOR_BayerGR2RGB',
    'bayer_grbg8': 'COLOR_BayerGB2RGB',
}


# How files begin and end.
_FILES = {
    'JPEG': (b'\xff\xd8', b'\xff\xd9'),
    'PNG': (b'\x89PNG', b'IEND\xaeB`\x82'),
}


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


def pixels_of(message: Any) -> Pixels:
    """Pixels (H, W, C) of a checked raw image, without a copy and without padding of rows."""
    channels = _CHANNELS[message.encoding]
    padded = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return padded[:, : message.width * channels].reshape(message.height, message.width, channels)


def raw_to_rgb(image: Pixels, encoding: str, order: str = 'auto') -> Pixels:
    """RGB (H, W, 3) of raw pixels (H, W) or (H, W, C) in a checked encoding.

    Args:
        image: the pixels.
        encoding: what the message calls them.
        order: `auto`, or `rgb8` or `bgr8` for the true order of three or four channels.

    Raises:
        HbvlaError: the encoding does not tell the order, or its picture has an odd size.
    """
    channels = _CHANNELS[encoding]
    if encoding in _CONVERSIONS:
        return _converted(image, encoding)
    if channels == 1:
        return _grey_to_rgb(image.reshape(image.shape[:2]))
    true_order = encoding if order == 'auto' else order
    if true_order.startswith('8U'):
        raise HbvlaError(
            f'image encoding {encoding!r} does not tell the order of colours; set encoding of this '
            'camera in the robot profile to rgb8 or bgr8'
        )
    colours = image[..., :3]
    return np.ascontiguousarray(colours[..., ::-1] if true_order.startswith('bgr') else colours)


def _converted(image: Pixels, encoding: str) -> Pixels:
    import cv2

    conversion = getattr(cv2, _CONVERSIONS[encoding])
    try:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), conversion), dtype=np.uint8)
    except cv2.error as error:
        height, width = image.shape[:2]
        raise HbvlaError(f'image of {width} x {height} cannot be {encoding}') from error


def check_compressed_image(message: Any) -> None:
    """Check a sensor_msgs/CompressedImage before a decoder reads it.

    A decoder makes a picture of half a JPEG file, grey where the other half should be.

    Raises:
        HbvlaError: no data, or a JPEG or PNG file that does not end as such a file does.
    """
    if len(message.data) == 0:
        raise HbvlaError(f'compressed image ({message.format}) is empty')
    data = bytes(message.data)
    for kind, (start, end) in _FILES.items():
        # Cameras that compress themselves may fill up with zeros behind the end.
        if data.startswith(start) and not data.rstrip(b'\0').endswith(end):
            raise HbvlaError(
                f'compressed image ({message.format}) is a {kind} file that is cut off'
            )


def compressed_to_rgb(image: Any, text: str, order: str = 'auto') -> Pixels:
    """RGB (H, W, 3) of what an image decoder that gives BGR or grey made of a message.

    Args:
        image: the decoded image, None where the decoder failed.
        text: field ``format`` of the message.
        order: `bgr8` for an ordinary colour file, `rgb8` for one whose red and blue are swapped,
            `auto` to go by ``text``.

    Raises:
        HbvlaError: not an 8-bit image.
    """
    if image is None or image.dtype != np.uint8:
        raise HbvlaError(f'compressed image ({text}) is not an 8-bit image')
    if image.ndim == 2:
        return _grey_to_rgb(image)
    # "rgb8; jpeg compressed rgb8": the sender took its RGB for OpenCV's BGR, so the decoder's
    # "BGR" is RGB already. Every other format string means an ordinary colour file.
    is_swapped = 'compressed rgb' in text if order == 'auto' else order == 'rgb8'
    return np.ascontiguousarray(image if is_swapped else image[..., ::-1])


def _grey_to_rgb(image: Pixels) -> Pixels:
    return np.repeat(image[..., None], 3, axis=2)
