# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Image chain and token ids against the reference's arrays (HBVLA_GOLDEN_DIR as for the models)."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from hbvla_ros.vla.images import (
    ImagePipeline,
    Preprocessor,
    bicubic_resize,
    center_crop,
    jpeg_round_trip,
    lanczos_resize,
    rotate_180,
)
from hbvla_ros.vla.platform import ALOHA, LIBERO
from hbvla_ros.vla.tokens import build_prompt, complete_ids

OWN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'
ROOT = Path(os.environ.get('HBVLA_GOLDEN_DIR') or OWN)


def difference(actual, expected) -> float:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())


@functools.cache
def preprocess() -> dict:
    place = ROOT if (ROOT / 'preprocess' / 'preprocess.npz').is_file() else OWN
    with np.load(place / 'preprocess' / 'preprocess.npz') as content:
        return dict(content)


PREPROCESS = {
    'aloha_256': lambda z: bicubic_resize(z['aloha_raw'], (256, 256)),
    'aloha_jpeg': lambda z: jpeg_round_trip(z['aloha_256']),
    'aloha_224': lambda z: lanczos_resize(z['aloha_jpeg'], (224, 224)),
    'aloha_crop': lambda z: center_crop(z['aloha_224']),
    'libero_jpeg': lambda z: jpeg_round_trip(rotate_180(z['libero_raw'])),
    'libero_224': lambda z: ImagePipeline(LIBERO, Preprocessor((224, 224))).policy_resize(
        z['libero_raw']
    ),
    'libero_crop': lambda z: center_crop(z['libero_224']),
    'direct_224_from_480x640': lambda z: lanczos_resize(
        jpeg_round_trip(z['aloha_raw']), (224, 224)
    ),
}


@pytest.mark.parametrize('name', PREPROCESS)
def test_golden_preprocess_stage(name):
    actual, expected = PREPROCESS[name](preprocess()), preprocess()[name]
    assert difference(actual, expected) <= 1
    assert np.mean(actual != expected) < 1e-3


def test_golden_preprocess_exact_stages():
    for name in ('aloha_256', 'aloha_jpeg', 'libero_jpeg'):
        np.testing.assert_array_equal(PREPROCESS[name](preprocess()), preprocess()[name])


def test_golden_preprocess_pixel_values():
    pipeline = ImagePipeline(ALOHA, Preprocessor((224, 224)))
    arrays = preprocess()
    actual = pipeline.normalise(arrays['aloha_crop'])[None]
    assert difference(actual, arrays['aloha_pixel_values']) <= 1e-6


def test_golden_preprocess_whole_chain():
    pipeline = ImagePipeline(ALOHA, Preprocessor((224, 224)))
    arrays = preprocess()
    actual = pipeline({camera: arrays['aloha_raw'] for camera in ALOHA.cameras})
    assert actual.shape == (18, 224, 224) and actual.dtype == np.float32
    np.testing.assert_array_equal(actual[:6], actual[12:])
    # One level of one channel is 1 / 255 over the smallest deviation.
    assert difference(actual[None, :6], arrays['aloha_pixel_values']) <= 1.001 / 255 / 0.2236


@functools.cache
def tokenization() -> dict:
    place = ROOT if (ROOT / 'tokenization' / 'tokenization.json').is_file() else OWN
    return json.loads((place / 'tokenization' / 'tokenization.json').read_text())


def test_golden_tokenization():
    special = tokenization()['special']
    assert len(tokenization()['examples']) > 10
    for example in tokenization()['examples']:
        assert build_prompt(example['task']) == example['prompt']
        identifiers = example['input_ids']
        completed = complete_ids(identifiers, special['bos'], special['empty'])
        # BOS is there already and stays single; the empty token is not and is appended.
        assert completed == [*identifiers, special['empty']]
        assert completed == complete_ids(completed, special['bos'], special['empty'])
        assert completed == complete_ids(identifiers[1:], special['bos'], special['empty'])
