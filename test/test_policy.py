# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.policy import Policy
from hbvla_ros.vla.platform import Platform


def observation(seed: int = 0, instruction: str = 'put red cube into bucket', stamp: float = 5.0):
    random = np.random.default_rng(seed)
    return Observation(
        images={
            name: random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            for name in ('cam_high', 'cam_low')
        },
        proprioception=random.uniform(-1, 1, 14),
        instruction=instruction,
        stamp=stamp,
    )


def test_act_gives_a_stamped_chunk_in_the_units_of_the_statistics(tiny_checkpoint):
    policy = Policy.load(tiny_checkpoint)
    seen = observation()
    chunk = policy.act(seen)
    assert chunk.actions.shape == (3, 14) and chunk.actions.dtype == np.float64
    assert (chunk.start, chunk.step, chunk.observation_stamp) == (5.0, 0.04, 5.0)
    assert chunk.instruction == seen.instruction
    assert chunk.checkpoint == policy.checkpoint and chunk.checkpoint.startswith('tiny@')
    with torch.no_grad():
        normalised = policy.network(
            torch.from_numpy(policy.images(seen.images))[None],
            torch.tensor([policy.tokenizer(seen.instruction)]),
            torch.from_numpy(policy.normaliser.proprio(seen.proprioception)).float()[None],
        )
    # Statistics of -1..2: 1.5 (y + 1) - 1.
    np.testing.assert_allclose(chunk.actions, 1.5 * (normalised[0].numpy() + 1) - 1, atol=1e-6)


def test_act_depends_on_each_input(tiny_checkpoint):
    policy = Policy.load(tiny_checkpoint)
    first = policy.act(observation()).actions
    np.testing.assert_array_equal(first, policy.act(observation()).actions)
    seen, other = observation(), observation(1)
    changes = {
        'images': other.images,
        'proprioception': other.proprioception,
        'instruction': 'put green cube into bucket',
    }
    for key, value in changes.items():
        changed = policy.act(dataclasses.replace(seen, **{key: value})).actions
        assert np.abs(changed - first).max() > 1e-5, key


def test_camera_order_is_the_platforms_not_the_dictionarys(tiny_checkpoint):
    policy = Policy.load(tiny_checkpoint)
    seen = observation()
    turned = dataclasses.replace(seen, images=dict(reversed(seen.images.items())))
    np.testing.assert_array_equal(policy.act(seen).actions, policy.act(turned).actions)


def test_batch_equals_one_by_one_even_with_prompts_of_different_length(tiny_checkpoint):
    policy = Policy.load(tiny_checkpoint)
    several = [
        observation(0),
        observation(1, 'put cube', stamp=6.0),
        observation(2, 'put green cube into bucket'),
        observation(3, 'put bucket'),
    ]
    together = policy.act_batch(several)
    for chunk, single in zip(together, several, strict=True):
        alone = policy.act(single)
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-5)
        assert (chunk.start, chunk.instruction) == (single.stamp, single.instruction)


def test_bfloat16_stays_near_float32(tiny_checkpoint):
    exact = Policy.load(tiny_checkpoint).act(observation()).actions
    coarse = Policy.load(tiny_checkpoint, dtype=torch.bfloat16).act(observation()).actions
    assert 0 < np.abs(exact - coarse).max() < 0.1


def test_libero_gripper_rule_reaches_the_chunk(make_tiny_checkpoint):
    folder = make_tiny_checkpoint(platform={'gripper': 'libero'})
    gripper = Policy.load(folder).act(observation()).actions[:, -1]
    assert set(np.abs(gripper)) == {1.0}


def test_diffusion_noise_comes_from_the_seed(make_tiny_checkpoint):
    folder = make_tiny_checkpoint(
        config={'head': 'diffusion'},
        platform={'action_slots_per_step': None, 'diffusion_steps_inference': 2},
    )
    first = Policy.load(folder, seed=1).act(observation()).actions
    np.testing.assert_array_equal(first, Policy.load(folder, seed=1).act(observation()).actions)
    assert np.abs(first - Policy.load(folder, seed=2).act(observation()).actions).max() > 1e-4


def test_policy_without_proprioception(make_tiny_checkpoint):
    policy = Policy.load(make_tiny_checkpoint(platform={'proprio_dim': 0}))
    seen = dataclasses.replace(observation(), proprioception=np.zeros(0))
    assert np.isfinite(policy.act(seen).actions).all()


def test_warmup_runs_the_network(tiny_checkpoint):
    policy = Policy.load(tiny_checkpoint)
    calls = []
    policy.network.register_forward_hook(lambda *_: calls.append(1))
    policy.warmup()
    assert calls == [1]


@pytest.mark.parametrize(
    'change, words',
    [
        ({'images': {'cam_high': np.zeros((8, 8, 3), np.uint8)}}, ['2 cameras', 'got 1']),
        ({'images': {}}, ['cam_high, cam_low', 'got 0']),
        ({'proprioception': np.zeros(7)}, ['proprioception', '14', '(7,)']),
        ({'proprioception': np.array([0.0] * 13 + [np.nan])}, ['value 13', 'not finite']),
    ],
)
def test_bad_observation_is_one_line(tiny_checkpoint, change, words):
    policy = Policy.load(tiny_checkpoint)
    with pytest.raises(HbvlaError) as raised:
        policy.act(dataclasses.replace(observation(), **change))
    assert all(word in str(raised.value) for word in words), raised.value


def test_bad_frame_names_the_camera(tiny_checkpoint):
    policy = Policy.load(tiny_checkpoint)
    images = dict(observation().images, cam_low=np.zeros((8, 8), np.uint8))
    with pytest.raises(HbvlaError, match=r"camera 'cam_low'.*uint8 \(8, 8\)"):
        policy.act(dataclasses.replace(observation(), images=images))


@pytest.mark.parametrize(
    'name, words',
    [
        ('tokenizer.json', ['no tokenizer.json']),
        ('preprocessor_config.json', ['preprocessor_config.json', 'missing']),
        ('platform.json', ['no platform.json', 'aloha, libero, bridge']),
        ('dataset_statistics.json', ['dataset_statistics.json', 'missing']),
        ('config.json', ['no config.json']),
    ],
)
def test_missing_file_is_one_line(tiny_checkpoint, name, words):
    (tiny_checkpoint / name).unlink()
    with pytest.raises(HbvlaError) as raised:
        Policy.load(tiny_checkpoint)
    assert all(word in str(raised.value) for word in words), raised.value


def test_no_folder(tmp_path):
    with pytest.raises(HbvlaError, match='no such checkpoint folder'):
        Policy.load(tmp_path / 'absent')


def test_preprocessor_of_another_size(tiny_checkpoint):
    path = tiny_checkpoint / 'preprocessor_config.json'
    values = json.loads(path.read_text())
    values['input_sizes'] = [[3, 64, 64], [3, 64, 64]]
    path.write_text(json.dumps(values))
    with pytest.raises(HbvlaError, match=r'\(64, 64\) pixels, config.json \(32, 32\)'):
        Policy.load(tiny_checkpoint)


def test_platform_given_by_object_or_file_wins(tiny_checkpoint):
    own = Platform.read(tiny_checkpoint / 'platform.json')
    slower = dataclasses.replace(own, step=0.1)
    assert Policy.load(tiny_checkpoint, slower).act(observation()).step == 0.1
    slower.write(tiny_checkpoint.parent / 'slower.json')
    loaded = Policy.load(tiny_checkpoint, tiny_checkpoint.parent / 'slower.json')
    assert loaded.act(observation()).step == 0.1
