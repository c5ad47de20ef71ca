# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and numpy: the only place that knows both.

Message arrays are filled with ``array.array``: assigning a numpy array or bytes to a uint8 field
makes rclpy look at every byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import cv2
import numpy as np
from builtin_interfaces.msg import Duration, Time
from cv_bridge import CvBridge
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hbvla_ros.control.pixels import (
    check_compressed_image,
    check_raw_image,
    compressed_to_rgb,
    pixels_of,
    raw_to_rgb,
)
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError

_BRIDGE = CvBridge()
_NANOSECONDS = 1_000_000_000


def to_seconds(stamp: Time | Duration) -> float:
    """Seconds of a stamp or duration."""
    return float(stamp.sec) + stamp.nanosec * 1e-9


def to_time(seconds: float) -> Time:
    """A stamp of seconds."""
    whole, rest = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return Time(sec=whole, nanosec=rest)


def to_duration(seconds: float) -> Duration:
    """A duration of seconds."""
    whole, rest = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return Duration(sec=whole, nanosec=rest)


def decode_image(message: CompressedImage | Image, order: str = 'auto') -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of a compressed or raw message, honouring its colour format.

    Args:
        message: the image.
        order: the camera's ``encoding`` in the robot profile: `auto` believes the message.

    Raises:
        HbvlaError: data that is no image, or an encoding that is not 8-bit colour or grey.
    """
    if isinstance(message, CompressedImage):
        return _decode_compressed(message, order)
    check_raw_image(message)
    return raw_to_rgb(_raw_pixels(message), message.encoding, order)


def _decode_compressed(message: CompressedImage, order: str) -> NDArray[np.uint8]:
    check_compressed_image(message)
    try:
        image = _BRIDGE.compressed_imgmsg_to_cv2(message, 'passthrough')
    except (cv2.error, TypeError) as error:
        raise HbvlaError(f'compressed image ({message.format}) cannot be decoded') from error
    return compressed_to_rgb(image, message.format, order)


def _raw_pixels(message: Image) -> NDArray[np.uint8]:
    """Pixels of a checked image, by cv_bridge where it reads them as they are."""
    whole = message.step * message.height == message.width * message.height * 3
    # cv_bridge would read padding at the end of rows as pixels, knows fewer formats, and fails on
    # a mark of byte order that means nothing for bytes.
    if whole and message.encoding in ('rgb8', 'bgr8') and not message.is_bigendian:
        return np.asarray(_BRIDGE.imgmsg_to_cv2(message, 'passthrough'), dtype=np.uint8)
    return pixels_of(message)


def encode_jpeg(
    image: NDArray[np.uint8], stamp: float, frame: str, quality: int
) -> CompressedImage:
    """Compressed message of an RGB image (H, W, 3), time in s, frame name, quality 1 .. 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(format='rgb8; jpeg compressed bgr8')
    message.header.stamp, message.header.frame_id = to_time(stamp), frame
    message.data = array('B', data.tobytes())
    return message


def raw_image(image: NDArray[np.uint8], stamp: float, frame: str) -> Image:
    """Raw rgb8 message of an RGB image (H, W, 3)."""
    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    message.header.stamp, message.header.frame_id = to_time(stamp), frame
    message.data = array('B', np.ascontiguousarray(image).tobytes())
    return message


def joint_state(
    names: Sequence[str],
    positions: NDArray[np.float64],
    stamp: float,
    velocities: NDArray[np.float64] | None = None,
) -> JointState:
    """Joint state message; vectors in the order of ``names``, time in s."""
    message = JointState(name=list(names), position=array('d', positions.tolist()))
    message.header.stamp = to_time(stamp)
    if velocities is not None:
        message.velocity = array('d', velocities.tolist())
    return message


def chunk_to_message(chunk: ActionChunk, names: Sequence[str]) -> JointTrajectory:
    """Chunk as a trajectory: header.stamp is when row 0 is due, frame_id the checkpoint.

    A chunk without rows tells the receiver to forget what it has and hold.
    """
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp, message.header.frame_id = to_time(chunk.start), chunk.checkpoint
    message.points = [
        JointTrajectoryPoint(
            positions=array('d', row.tolist()), time_from_start=to_duration(index * chunk.step)
        )
        for index, row in enumerate(np.asarray(chunk.actions, dtype=np.float64))
    ]
    return message


def message_to_chunk(message: JointTrajectory, names: Sequence[str]) -> ActionChunk:
    """Inverse of :func:`chunk_to_message`; the instruction does not travel and is empty.

    Raises:
        HbvlaError: other joint names, ragged rows, a single row, or rows that are not evenly spaced
            from 0.
    """
    if list(message.joint_names) != list(names):
        strange = sorted(set(message.joint_names) ^ set(names)) or ['the order']
        raise HbvlaError(f"chunk has other joint names than this robot's: {strange[0]}")
    if any(len(point.positions) != len(names) for point in message.points):
        raise HbvlaError(f'chunk has a row that is not {len(names)} positions long')
    if len(message.points) == 1:
        # How long it is in force could only be guessed, and a fade would not let it move a joint.
        raise HbvlaError('chunk has a single row, which tells no step; send two rows or more')
    rows = np.array([point.positions for point in message.points], dtype=np.float64)
    times = np.array([to_seconds(point.time_from_start) for point in message.points])
    step = float(times[-1] / (len(times) - 1)) if len(times) else 1.0
    if len(times) and not np.allclose(times, step * np.arange(len(times)), atol=1e-6):
        raise HbvlaError('chunk has rows that are not evenly spaced from 0; use a constant step')
    start = to_seconds(message.header.stamp)
    return ActionChunk(
        rows.reshape(-1, len(names)), start, step, start, '', message.header.frame_id
    )
