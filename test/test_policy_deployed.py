# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.linear import PackedLinear
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import Platform

FULL_SLOTS = {'action_slots_per_step': None, 'diffusion_steps_inference': 2}
KINDS = {
    'l1': ({}, {}),
    'film': ({'film': True}, {}),
    'diffusion': ({'head': 'diffusion'}, FULL_SLOTS),
    'discrete': ({'head': 'discrete'}, FULL_SLOTS),
    'no proprio': ({}, {'proprio_dim': 0}),
}


def observation(policy: Policy) -> Observation:
    random = np.random.default_rng(0)
    images = {
        name: random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        for name in policy.platform.cameras
    }
    proprioception = random.uniform(-1, 1, policy.platform.proprio_dim)
    return Observation(images, proprioception, 'put red cube', 1.0)


def deploy(folder, method: str = 'rtn', bits: float = 1.0):
    checkpoint = Checkpoint.open(folder, Platform.read(folder / 'platform.json'))
    out = folder.parent / f'{folder.name}-{method}'
    quantize_checkpoint(checkpoint, Request(method, bits), out)
    return out


@pytest.mark.parametrize('kind', KINDS)
def test_deployed_policy_equals_its_dequantized_weights(make_tiny_checkpoint, kind):
    config, platform = KINDS[kind]
    folder = make_tiny_checkpoint(config=config, platform=platform)
    out = deploy(folder)
    deployed = Policy.load(out)
    assert deployed.network.config.head == config.get('head', 'l1')
    reference = Policy.load(folder)
    with torch.no_grad():
        for parameter in reference.network.parameters():
            parameter.copy_(parameter.bfloat16())  # What is not quantized is kept in bfloat16.
        for name, layer in PackedFolder.open(out).layers.items():
            reference.network.get_submodule(name).weight.copy_(layer.reconstruct())
    seen = observation(reference)
    wanted, actual = reference.act(seen), deployed.act(seen)
    np.testing.assert_allclose(actual.actions, wanted.actions, atol=1e-4)
    assert actual.checkpoint.startswith('tiny-rtn@')


def test_quantization_shows_in_the_actions(tiny_checkpoint):
    full, deployed = Policy.load(tiny_checkpoint), Policy.load(deploy(tiny_checkpoint))
    seen = observation(full)
    assert np.abs(deployed.act(seen).actions - full.act(seen).actions).max() > 1e-3


def test_packed_residency_gives_the_same_actions(tiny_checkpoint):
    out = deploy(tiny_checkpoint, 'signplane')
    dense, packed = Policy.load(out), Policy.load(out, residency='packed')
    kinds = [module for module in packed.network.modules() if isinstance(module, PackedLinear)]
    assert len(kinds) == 2 * 4 * 2 + 2 * 7
    assert all(module.residency == 'packed' for module in kinds)
    seen = observation(dense)
    np.testing.assert_allclose(packed.act(seen).actions, dense.act(seen).actions, atol=1e-4)


def test_deployed_bfloat16(tiny_checkpoint):
    out = deploy(tiny_checkpoint)
    exact, coarse = Policy.load(out), Policy.load(out, dtype=torch.bfloat16)
    seen = observation(exact)
    assert np.abs(exact.act(seen).actions - coarse.act(seen).actions).max() < 0.1


@pytest.mark.parametrize(
    'name, words',
    [
        ('tokenizer.json', 'tokenizer.json'),
        ('config.json', 'config.json'),
        ('model.safetensors', 'model.safetensors: missing'),
    ],
)
def test_missing_file_of_a_deployed_folder(tiny_checkpoint, name, words):
    out = deploy(tiny_checkpoint)
    (out / name).unlink()
    with pytest.raises(HbvlaError, match=words):
        Policy.load(out)


def test_deployed_folder_with_another_platform(tiny_checkpoint):
    with pytest.raises(HbvlaError, match='trained with proprio_dim 14, but'):
        Policy.load(deploy(tiny_checkpoint), 'libero')


def test_deployed_folder_of_another_version(tiny_checkpoint):
    out = deploy(tiny_checkpoint)
    manifest = json.loads((out / 'hbvla.json').read_text())
    manifest['format_version'] = 99
    (out / 'hbvla.json').write_text(json.dumps(manifest))
    with pytest.raises(HbvlaError, match='format version 99'):
        Policy.load(out)
