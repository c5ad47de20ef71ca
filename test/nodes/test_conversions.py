# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Messages and numpy, both ways."""

from __future__ import annotations

import time
from array import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image, JointState

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters import ForwardCommand, JointStateCommand
from hbvla_ros.nodes.conversions import (
    chunk_to_message,
    decode_image,
    encode_jpeg,
    message_to_chunk,
    raw_image,
    to_seconds,
    to_time,
)

RED = np.zeros((24, 32, 3), np.uint8)
RED[..., 0] = 200


def raw(encoding, pixels, padding=0):
    pixels = np.asarray(pixels, np.uint8)
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Image(height=height, width=width, encoding=encoding, step=rows.shape[1],
                 data=array('B', rows.tobytes()))  # fmt: skip


def compressed(data, text):
    return CompressedImage(format=text, data=array('B', bytes(data)))


def test_jpeg_round_trip_keeps_red_red():
    message = encode_jpeg(RED, 12.5, 'cam_high', 95)
    image = decode_image(message)
    assert image.shape == RED.shape and image.flags.c_contiguous
    np.testing.assert_allclose(image, RED, atol=4)
    assert to_seconds(message.header.stamp) == 12.5 and message.header.frame_id == 'cam_high'


@pytest.mark.parametrize(
    'text', ['jpeg', 'jpg', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8', '']
)
def test_ordinary_jpeg_under_every_ordinary_name(text):
    data = cv2.imencode('.jpg', RED[..., ::-1])[1]
    np.testing.assert_allclose(decode_image(compressed(data, text)), RED, atol=4)


def test_files_may_be_filled_up_with_zeros():
    data = cv2.imencode('.jpg', RED[..., ::-1])[1].tobytes() + bytes(1000)
    np.testing.assert_allclose(decode_image(compressed(data, 'jpeg')), RED, atol=4)


def test_format_that_says_the_sender_swapped_red_and_blue():
    data = cv2.imencode('.png', RED)[1]
    image = decode_image(compressed(data, 'rgb8; png compressed rgb8'))
    np.testing.assert_array_equal(image, RED)


def test_grey_images_become_rgb():
    grey = np.full((8, 8), 50, np.uint8)
    data = cv2.imencode('.png', grey)[1]
    assert decode_image(compressed(data, 'mono8; png compressed mono8')).shape == (8, 8, 3)
    assert (decode_image(raw('mono8', grey)) == 50).all()


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding, order', [('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0])])
def test_raw_colour(encoding, order, padding):
    np.testing.assert_array_equal(decode_image(raw(encoding, RED[..., order], padding)), RED)


@pytest.mark.parametrize('encoding', ['8UC3', 'rgb8', 'bgr8'])
@pytest.mark.parametrize('order, channels', [('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0])])
def test_a_camera_may_say_its_true_order(encoding, order, channels):
    image = decode_image(raw(encoding, RED[..., channels], padding=3), order)
    np.testing.assert_array_equal(image, RED)
    # Without colours there is no order to be wrong about.
    grey = np.full((8, 8), 50, np.uint8)
    assert (decode_image(raw('8UC1', grey), order) == 50).all()


@pytest.mark.parametrize(
    'swapped, text, order',
    [
        (False, 'rgb8; jpeg compressed rgb8', 'bgr8'),
        (True, 'jpeg', 'rgb8'),
        (True, 'bgr8; jpeg compressed bgr8', 'rgb8'),
    ],
)
def test_a_camera_may_say_what_is_in_its_files(swapped, text, order):
    data = cv2.imencode('.png', RED if swapped else RED[..., ::-1])[1]
    np.testing.assert_array_equal(decode_image(compressed(data, text), order), RED)


def test_bytes_have_no_byte_order():
    message = raw('bgr8', RED[..., ::-1])
    message.is_bigendian = 1
    np.testing.assert_array_equal(decode_image(message), RED)


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize(
    'encoding, first', [('yuv422', 1), ('uyvy', 1), ('yuv422_yuy2', 0), ('yuyv', 0)]
)
def test_luminance_and_colour_in_turns(encoding, first, padding):
    """Red is Y 81, U 90, V 240 (BT.601); two pixels share their U and V."""
    pixels = np.empty((24, 32, 2), np.uint8)
    pixels[..., first] = 81
    pixels[:, 0::2, 1 - first], pixels[:, 1::2, 1 - first] = 90, 240
    image = decode_image(raw(encoding, pixels, padding))
    np.testing.assert_allclose(image, np.full((24, 32, 3), [254, 0, 0]), atol=3)


@pytest.mark.parametrize(
    'encoding, row, column',
    [('bayer_rggb8', 0, 0), ('bayer_bggr8', 1, 1), ('bayer_gbrg8', 1, 0), ('bayer_grbg8', 0, 1)],
)
def test_bayer_patterns(encoding, row, column):
    """Only the pixels under a red filter see something."""
    mosaic = np.zeros((24, 32), np.uint8)
    mosaic[row::2, column::2] = 200
    image = decode_image(raw(encoding, mosaic))
    np.testing.assert_allclose(image[4:-4, 4:-4], RED[4:-4, 4:-4], atol=1)


def test_raw_with_alpha():
    alpha = np.full((24, 32, 1), 255, np.uint8)
    bgra = np.concatenate([RED[..., ::-1], alpha], axis=2)
    np.testing.assert_array_equal(decode_image(raw('bgra8', bgra)), RED)


@pytest.mark.parametrize(
    'message, expected',
    [
        (compressed(b'', 'jpeg'), 'is empty'),
        (compressed(b'not an image', 'jpeg'), 'is not an 8-bit image'),
        (
            compressed(cv2.imencode('.jpg', RED)[1].tobytes()[:40], 'jpeg'),
            'a JPEG file that is cut off',
        ),
        (
            compressed(cv2.imencode('.jpg', RED)[1].tobytes()[:-30], ''),
            'a JPEG file that is cut off',
        ),
        (
            compressed(cv2.imencode('.png', RED)[1].tobytes()[:-9], 'png'),
            'a PNG file that is cut off',
        ),
        (raw('16UC1', RED[..., 0]), "encoding '16UC1' is not one of rgb8"),
        (raw('8UC3', RED), "'8UC3' does not tell the order of colours; set encoding"),
        (raw('yuyv', np.zeros((4, 3, 2))), 'image of 3 x 4 cannot be yuyv'),
        (Image(height=2, width=2**31, encoding='rgb8', step=6, data=[0] * 12), 'cannot have 12'),
        (
            compressed(b'\x89PNG\r\n\x1a\n' + b'\xff' * 64 + b'IEND\xaeB`\x82', 'png'),
            'is not an 8-bit image',
        ),
        (Image(height=2, width=2, encoding='rgb8', step=6, data=[0]), 'cannot have 1 bytes'),
        (Image(height=0, width=0, encoding='rgb8', step=0), 'cannot have 0 bytes'),
    ],
)
def test_malformed_images_are_one_line(message, expected):
    with pytest.raises(HbvlaError, match=expected):
        decode_image(message)


def test_building_image_messages_is_fast():
    image = np.zeros((480, 640, 3), np.uint8)
    best = []
    for _ in range(5):
        started = time.perf_counter()
        raw_image(image, 0.0, 'camera')
        best.append(time.perf_counter() - started)
    # Assigning the numpy array itself takes 90 ms.
    assert min(best) < 0.005


def test_time_round_trip():
    for seconds in (0.0, 1.25, 1_700_000_000.123456):
        assert to_seconds(to_time(seconds)) == pytest.approx(seconds, abs=1e-6)


NAMES = ['a', 'b']


def test_chunk_round_trip():
    chunk = ActionChunk(np.arange(8.0).reshape(4, 2), 100.25, 0.04, 100.25, 'go', 'folder-1a2b')
    message = chunk_to_message(chunk, NAMES)
    back = message_to_chunk(message, NAMES)
    np.testing.assert_array_equal(back.actions, chunk.actions)
    assert back.start == pytest.approx(100.25) and back.step == pytest.approx(0.04)
    assert back.observation_stamp == back.start and back.checkpoint == 'folder-1a2b'


def test_chunk_without_rows_survives():
    chunk = ActionChunk(np.empty((0, 2)), 1.0, 1.0, 1.0, '', '')
    assert message_to_chunk(chunk_to_message(chunk, NAMES), NAMES).actions.shape == (0, 2)


def test_strange_chunks_are_refused():
    message = chunk_to_message(ActionChunk(np.zeros((3, 2)), 1.0, 0.1, 1.0, '', ''), NAMES)
    with pytest.raises(HbvlaError, match="other joint names than this robot's: c"):
        message_to_chunk(message, ['a', 'b', 'c'])
    with pytest.raises(HbvlaError, match='the order'):
        message_to_chunk(message, ['b', 'a'])
    single = chunk_to_message(ActionChunk(np.zeros((1, 2)), 1.0, 0.1, 1.0, '', ''), NAMES)
    with pytest.raises(HbvlaError, match='a single row, which tells no step'):
        message_to_chunk(single, NAMES)
    message.points[1].time_from_start.nanosec = 5
    with pytest.raises(HbvlaError, match='not evenly spaced'):
        message_to_chunk(message, NAMES)
    message.points[1].positions = [0.0]
    with pytest.raises(HbvlaError, match='not 2 positions long'):
        message_to_chunk(message, NAMES)


@pytest.fixture
def arm():
    return RobotProfile.load('aloha_sim').arms[0]


@pytest.mark.parametrize('kind', [ForwardCommand, JointStateCommand])
def test_adapters_command_the_gripper_in_the_drivers_unit(arm, kind):
    adapter, pose = kind(arm), np.append(np.linspace(-0.5, 0.5, 6), 0.25)
    message = adapter.build(pose, 3.0)
    assert adapter.values(message)[-1] == pytest.approx(0.01844 + 0.25 * (0.058 - 0.01844))
    np.testing.assert_allclose(adapter.parse(message), pose)


def test_adapters_refuse_what_does_not_fit(arm):
    forward, by_name = ForwardCommand(arm), JointStateCommand(arm)
    message = forward.build(np.zeros(7), 0.0)
    message.data[2] = float('nan')
    with pytest.raises(HbvlaError, match='left/commands: command is not finite'):
        forward.parse(message)
    message.data.pop()
    with pytest.raises(HbvlaError, match='expected 7 numbers, got 6'):
        forward.parse(message)
    with pytest.raises(HbvlaError, match="joint 'left_shoulder' is missing"):
        by_name.parse(JointState(name=['left_waist'], position=[0.0]))


def test_joint_states_are_read_by_name(arm):
    values = dict(zip(arm.names, [*range(6), 0.058], strict=True))
    names = sorted(values) + ['other']
    message = JointState(name=names, position=[float(values.get(n, 9.0)) for n in names])
    np.testing.assert_allclose(observed_pose(arm, message), [0, 1, 2, 3, 4, 5, 1.0])
    message.position[names.index('left_elbow')] = float('inf')
    with pytest.raises(HbvlaError, match='left/joint_states: position is not finite'):
        observed_pose(arm, message)
