# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.images import (
    DINO_MEAN,
    DINO_STD,
    ImagePipeline,
    Preprocessor,
    center_crop,
    jpeg_round_trip,
    lanczos_resize,
    rotate_180,
)
from hbvla_ros.vla.platform import ALOHA, LIBERO


def noise(height: int, width: int, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rotation_by_hand():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    turned = rotate_180(image)
    np.testing.assert_array_equal(turned[0, 0], image[1, 1])
    np.testing.assert_array_equal(turned[0, 1], image[1, 0])
    np.testing.assert_array_equal(rotate_180(turned), image)


def test_lanczos_keeps_constants_and_identity():
    np.testing.assert_array_equal(
        lanczos_resize(np.full((37, 53, 3), 77, np.uint8), (24, 96)), np.full((24, 96, 3), 77)
    )
    image = noise(16, 12)
    np.testing.assert_array_equal(lanczos_resize(image, (16, 12)), image)


def test_lanczos_stays_near_pillows():
    image = np.asarray(Image.fromarray(noise(20, 30)).resize((128, 128), Image.Resampling.BICUBIC))
    theirs = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.LANCZOS))
    ours = lanczos_resize(image, (96, 96))
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2


def test_crop_by_hand():
    """A ramp is sampled at 5.7218 .. 217.2782 and truncated after multiplying by 255.5."""
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[None, :, None], (224, 224, 3)).copy()
    row = center_crop(ramp)[100, :, 0]
    position = 5.7218 + np.arange(224) * (217.2782 - 5.7218) / 223
    wanted = np.floor(position / 255 * 255.5)
    assert np.abs(row - wanted).max() <= 1 and (row == wanted).mean() > 0.95
    assert (row[0], row[-1]) == (5, 217)
    assert center_crop(np.full((8, 8, 3), 255, np.uint8)).min() == 255


def test_jpeg_round_trip_changes_a_little():
    image = np.asarray(Image.fromarray(noise(8, 8)).resize((64, 64), Image.Resampling.BICUBIC))
    again = jpeg_round_trip(image)
    assert again.shape == image.shape and again.dtype == np.uint8
    assert 0 < np.abs(again.astype(int) - image.astype(int)).mean() < 10


def test_normalisation_by_hand():
    pipeline = ImagePipeline(ALOHA, Preprocessor((1, 1)))
    actual = pipeline.normalise(np.array([[[0, 51, 255]]], dtype=np.uint8))[:, 0, 0]
    wanted = [(value - mean) / std for value, mean, std in zip(
        (0, 0.2, 1), DINO_MEAN, DINO_STD, strict=True)]  # fmt: skip
    np.testing.assert_allclose(actual, [*wanted, -1, -0.6, 1], atol=1e-6)


def test_steps_follow_the_platform():
    frame = noise(40, 60)
    preprocessor = Preprocessor((24, 24))

    def resized(**changes):
        platform = dataclasses.replace(ALOHA, resize=None, jpeg_round_trip=False, **changes)
        return ImagePipeline(platform, preprocessor).policy_resize(frame)

    plain = resized()
    np.testing.assert_array_equal(plain, lanczos_resize(frame, (24, 24)))
    np.testing.assert_array_equal(resized(rotate_180=True), lanczos_resize(rotate_180(frame),
                                                                           (24, 24)))  # fmt: skip
    pipeline = ImagePipeline(dataclasses.replace(ALOHA, center_crop=False), preprocessor)
    np.testing.assert_array_equal(pipeline.center_crop(plain), plain)
    with_jpeg = ImagePipeline(dataclasses.replace(ALOHA, resize=(32, 32)), preprocessor)
    assert np.abs(with_jpeg.policy_resize(frame).astype(int) - plain.astype(int)).max() > 2


def test_frame_of_the_networks_size_is_only_rotated():
    frame = noise(24, 24)
    pipeline = ImagePipeline(LIBERO, Preprocessor((24, 24)))
    np.testing.assert_array_equal(pipeline.policy_resize(frame), frame[::-1, ::-1])


def test_cameras_are_stacked_in_the_platforms_order():
    pipeline = ImagePipeline(ALOHA, Preprocessor((24, 24)))
    images = {camera: noise(48, 64, seed) for seed, camera in enumerate(reversed(ALOHA.cameras))}
    stacked = pipeline(images)
    assert stacked.shape == (18, 24, 24) and stacked.dtype == np.float32
    for index, camera in enumerate(ALOHA.cameras):
        alone = pipeline.normalise(pipeline.center_crop(pipeline.policy_resize(images[camera])))
        np.testing.assert_array_equal(stacked[6 * index : 6 * index + 6], alone)


@pytest.mark.parametrize('names', [[], ['cam_high'], ['cam_high', 'cam_left_wrist', 'other'],
                                   [*ALOHA.cameras, 'cam_low']])  # fmt: skip
def test_wrong_cameras(names):
    pipeline = ImagePipeline(ALOHA, Preprocessor((24, 24)))
    with pytest.raises(HbvlaError, match=f'takes 3 cameras .*got {len(names)}'):
        pipeline(dict.fromkeys(names, noise(8, 8)))


@pytest.mark.parametrize(
    'frame',
    [np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8),
     np.zeros((8, 8), np.uint8)],
    ids=['float', 'four channels', 'empty', 'grey'],
)  # fmt: skip
def test_wrong_frame(frame):
    pipeline = ImagePipeline(dataclasses.replace(ALOHA, cameras=('a',)), Preprocessor((24, 24)))
    with pytest.raises(HbvlaError, match="camera 'a': need uint8"):
        pipeline({'a': frame})


def test_preprocessor_takes_the_rounded_constants(tmp_path):
    values = Preprocessor((24, 32)).to_json()
    values['means'] = values['stds'] = [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5]]
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(values))
    read = Preprocessor.read(tmp_path)
    assert read.size == (24, 32) and read.means[0] == DINO_MEAN and read.stds[0] == DINO_STD


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda v: v.pop('tvf_normalize_params'), "key 'tvf_normalize_params' is missing"),
        (lambda v: v['tvf_normalize_params'].pop(), '3 channels of 2 towers'),
        (lambda v: v.update(input_sizes=[]), 'not a readable preprocessor'),
        (lambda v: v['tvf_normalize_params'][0].update(mean=['x', 1, 2]), 'not a readable'),
    ],
)
def test_wrong_preprocessor_file(tmp_path, change, words):
    values = Preprocessor((24, 24)).to_json()
    values = json.loads(json.dumps(values))
    change(values)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(values))
    with pytest.raises(HbvlaError, match=words):
        Preprocessor.read(tmp_path)
