# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.export import save_checkpoint
from hbvla_ros.vla.platform import Platform


def opened(folder):
    return Checkpoint.open(folder, Platform.read(folder / 'platform.json'))


def test_files_and_types_are_those_of_a_real_folder(tiny_checkpoint):
    assert {path.name for path in tiny_checkpoint.iterdir()} == {
        'config.json', 'model.safetensors', 'action_head--7_checkpoint.pt',
        'proprio_projector--7_checkpoint.pt', 'dataset_statistics.json',
        'preprocessor_config.json', 'platform.json', 'tokenizer.json',
    }  # fmt: skip
    weights = load_file(tiny_checkpoint / 'model.safetensors')
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not any(name.startswith(('action_head', 'proprio')) for name in weights)
    head = torch.load(tiny_checkpoint / 'action_head--7_checkpoint.pt', weights_only=True)
    assert all(name.startswith('module.model.') for name in head)
    assert {tensor.dtype for tensor in head.values()} == {torch.bfloat16}
    projector = torch.load(
        tiny_checkpoint / 'proprio_projector--7_checkpoint.pt', weights_only=True
    )
    assert set(projector) == {f'module.fc{i}.{part}' for i in (1, 2) for part in ('weight', 'bias')}
    assert {tensor.dtype for tensor in projector.values()} == {torch.float32}
    values = json.loads((tiny_checkpoint / 'preprocessor_config.json').read_text())
    assert values['tvf_normalize_params'][0]['mean'] == [0.484375, 0.455078125, 0.40625]


@pytest.mark.parametrize(
    'config, platform',
    [
        ({}, {}),
        ({'film': True}, {}),
        ({'head': 'diffusion'}, {'action_slots_per_step': None}),
        ({'head': 'discrete'}, {'action_slots_per_step': None}),
        ({'head_hidden_size': 20, 'head_blocks': 1}, {}),
        ({}, {'proprio_dim': 0}),
    ],
    ids=['l1', 'film', 'diffusion', 'discrete', 'other head', 'no proprio'],
)
def test_saved_network_is_read_back(make_tiny_checkpoint, tmp_path, config, platform):
    folder = make_tiny_checkpoint(config=config, platform=platform)
    network = opened(folder).load_network(inference_only=False)
    for key, value in config.items():
        assert getattr(network.config, key) == value
    again = save_checkpoint(
        network, tmp_path / 'again', None,
        json.loads((folder / 'dataset_statistics.json').read_text()), network.platform, step=7,
    )  # fmt: skip
    second = opened(again).load_network(inference_only=False).state_dict()
    first = network.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_lean_network_is_saved_without_what_no_action_needs(tiny_checkpoint, tmp_path):
    lean = opened(tiny_checkpoint).load_network()
    folder = save_checkpoint(
        lean, tmp_path / 'lean', None,
        json.loads((tiny_checkpoint / 'dataset_statistics.json').read_text()), lean.platform,
    )  # fmt: skip
    again = opened(folder)
    assert again.config.featurizer.depth == 3
    assert set(again.names()) == set(lean.state_dict())
    assert all(
        torch.equal(value, lean.state_dict()[name])
        for name, value in again.load_network().state_dict().items()
    )


def test_averaged_weights_take_the_place_of_the_networks(tiny_checkpoint, tmp_path):
    network = opened(tiny_checkpoint).load_network()
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    folder = save_checkpoint(network, tmp_path / 'zero', None, {'x': {}}, network.platform,
                             state=state)  # fmt: skip
    assert all(not value.any() for value in load_file(folder / 'model.safetensors').values())


def test_other_step_in_the_folder(tiny_checkpoint):
    network = opened(tiny_checkpoint).load_network()
    with pytest.raises(HbvlaError, match='holds .*--7_checkpoint.pt of another step'):
        save_checkpoint(network, tiny_checkpoint, None, {}, network.platform, step=8)
