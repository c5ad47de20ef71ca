# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Every stage against the reference's arrays, for every folder with a fixture.json.

HBVLA_GOLDEN_DIR names another folder of fixtures. What an expected.npz does not hold is not asked.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hbvla_ros.vla.tokens import build_prompt

OWN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'
ROOT = Path(os.environ.get('HBVLA_GOLDEN_DIR') or OWN)
FOLDERS = sorted(path.parent for path in ROOT.glob('*/fixture.json'))

# Largest difference allowed, per array of inputs.npz and expected.npz.
INPUT_TOLERANCE = {
    'images_cropped_uint8': 1,
    'pixel_values': 1e-6,
    'input_ids_full': 0,
    'proprio_normalized': 1e-9,
}
TOLERANCE = {
    'vision_patch_features': 2e-5,
    'projected_patch_embeddings': 2e-5,
    'proprio_token': 2e-5,
    'multimodal_embeddings': 1e-4,
    'multimodal_embeddings_step0': 1e-4,
    'multimodal_attention_mask': 0,
    'layer1_hidden_state': 1e-4,
    'last_hidden_state': 1e-4,
    'actions_hidden_states': 1e-4,
    'normalized_actions': 1e-4,
    'actions': 1e-4,
    'libero_env_actions': 1e-4,
    'discrete_actions': 1e-4,
    'alphas_cumprod': 1e-6,
    'ddim_timesteps': 0,
    'ddim_noise_pred': 1e-4,
    'ddim_samples': 1e-4,
}


def difference(actual, expected) -> float:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())


def arrays_in(folder: Path, file: str, known) -> list:
    with np.load(folder / file) as content:
        return [
            pytest.param(folder, name, id=f'{folder.name}-{name}')
            for name in content.files
            if name in known
        ]


def test_golden_folders_are_there():
    assert FOLDERS, f'no fixture.json below {ROOT}'


def input_arrays() -> list:
    """Without a proprio projector the network has no use for the proprio arrays."""
    names = {
        folder: [
            name
            for name in INPUT_TOLERANCE
            if 'proprio' not in name or any(folder.glob('proprio_projector--*'))
        ]
        for folder in FOLDERS
    }
    return [param for folder in FOLDERS for param in arrays_in(folder, 'inputs.npz', names[folder])]


@pytest.mark.parametrize('folder, name', input_arrays())
def test_golden_inputs(load_case, folder, name):
    case = load_case(folder)
    assert difference(case.actual(name), case.inputs[name]) <= INPUT_TOLERANCE[name]


@pytest.mark.parametrize(
    'folder, name',
    [param for folder in FOLDERS for param in arrays_in(folder, 'expected.npz', TOLERANCE)],
)
def test_golden_stages(load_case, folder, name):
    case = load_case(folder)
    assert difference(case.actual(name), case.expected[name]) <= TOLERANCE[name]


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_golden_prompt_and_length(load_case, folder):
    case = load_case(folder)
    assert build_prompt(case.fixture['task_label']) == case.fixture['prompt']
    assert case.checkpoint.config.empty_token_id == case.fixture['empty_token_id']
    assert case.seen['last_hidden_state'].shape[1] == case.fixture['sequence_len']


@pytest.mark.parametrize(
    'folder, name',
    [
        param
        for folder in FOLDERS
        for param in arrays_in(folder, 'expected.npz', ['bf16_normalized_actions'])
    ],
)
def test_golden_bfloat16_band(load_case, folder, name):
    case = load_case(folder)
    network = case.checkpoint.load_network(dtype=torch.bfloat16)
    with torch.inference_mode():
        actual = network(*case.arguments())[0].float().numpy()
    assert actual.shape == case.expected[name].shape
    error = np.abs(actual - case.expected['normalized_actions'])
    assert error.mean() < 0.1 and error.max() < 0.4
