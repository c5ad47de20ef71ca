# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import ALOHA, Platform
from hbvla_ros.vla.tensor_files import SafetensorsFile

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'
KEY = 'aloha1_put_X_into_pot_300_demos'
ALOHA_KEYED = dataclasses.replace(ALOHA, statistics_key=KEY)


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A golden folder with three shards, to be damaged."""
    return Path(shutil.copytree(GOLDEN / 'aloha_l1', tmp_path / 'sharded'))


def open_tiny(folder: Path, **changes) -> Checkpoint:
    platform = Platform.read(folder / 'platform.json')
    return Checkpoint.open(folder, dataclasses.replace(platform, **changes))


def rewrite(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_names_shapes_and_tensors(sharded):
    checkpoint = Checkpoint.open(sharded, ALOHA_KEYED)
    name = 'language_model.model.layers.3.mlp.down_proj.weight'
    assert name in checkpoint.names() and checkpoint.shape(name) == (64, 128)
    assert checkpoint.tensor(name).dtype == torch.bfloat16
    assert 'action_head.model.fc1.weight' in checkpoint.names()
    assert checkpoint.tensor('proprio_projector.fc1.weight').dtype == torch.float32
    with pytest.raises(HbvlaError, match="no tensor 'nonsense'"):
        checkpoint.tensor('nonsense')


def test_tensors_are_mapped_and_assigned_not_copied(tiny_checkpoint):
    checkpoint = open_tiny(tiny_checkpoint)
    name = 'language_model.model.layers.0.self_attn.q_proj.weight'
    mapped = checkpoint.tensor(name)
    # Two readings share the memory of the mapping.
    assert mapped.data_ptr() == checkpoint.tensor(name).data_ptr()
    network = checkpoint.load_network(dtype=torch.bfloat16)
    maps = Path('/proc/self/maps').read_text().splitlines()
    ranges = [tuple(int(end, 16) for end in line.split()[0].split('-')) for line in maps
              if str(tiny_checkpoint) in line]  # fmt: skip
    assert ranges
    for name, parameter in network.named_parameters():
        if name.startswith('proprio_projector.'):
            continue  # Kept in float32 in the file, so converted.
        place = parameter.data_ptr()
        assert any(start <= place < end for start, end in ranges), name


def test_changing_a_network_does_not_write_into_the_files(tiny_checkpoint):
    before = {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    network = open_tiny(tiny_checkpoint).load_network(dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert before == {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    assert open_tiny(tiny_checkpoint).tensor('projector.fc1.bias').abs().max() < 1


def test_shards_are_read_one_after_another_and_let_go(sharded, monkeypatch):
    events = []
    read, release = SafetensorsFile.tensor, SafetensorsFile.release
    monkeypatch.setattr(
        SafetensorsFile, 'tensor', lambda self, name: (events.append(self.path.name),
                                                       read(self, name))[1])  # fmt: skip
    monkeypatch.setattr(
        SafetensorsFile, 'release', lambda self: (events.append(f'released {self.path.name}'),
                                                  release(self))[1])  # fmt: skip
    checkpoint = Checkpoint.open(sharded, ALOHA_KEYED)
    assert events == []  # Opening reads names and shapes only.
    checkpoint.load_network()
    order = list(dict.fromkeys(events))
    shards = sorted(path.name for path in sharded.glob('model-*.safetensors'))
    seen = [name for name in order if name in shards]
    assert sorted(seen) == shards
    for earlier, later in zip(seen, seen[1:], strict=False):
        released = order.index(f'released {earlier}')
        assert order.index(earlier) < released < order.index(later)
    maps = Path('/proc/self/maps').read_text()
    assert str(sharded) + '/model-' not in maps


def test_same_network_from_shards_without_index(sharded):
    first = Checkpoint.open(sharded, ALOHA_KEYED).load_network().state_dict()
    (sharded / 'model.safetensors.index.json').unlink()
    second = Checkpoint.open(sharded, ALOHA_KEYED).load_network().state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_latest_as_step(sharded):
    for path in sharded.glob('*--1_checkpoint.pt'):
        path.rename(path.with_name(path.name.replace('--1_', '--latest_')))
    assert Checkpoint.open(sharded, ALOHA_KEYED).config.head == 'l1'


def test_discrete_head_where_there_is_no_head_file(sharded):
    (sharded / 'action_head--1_checkpoint.pt').unlink()
    checkpoint = Checkpoint.open(sharded, ALOHA_KEYED)
    assert checkpoint.config.head == 'discrete'
    assert hasattr(checkpoint.load_network().language_model, 'lm_head')


def test_folder_statistics_win_and_configs_own_are_the_fallback(sharded):
    assert list(Checkpoint.open(sharded, ALOHA_KEYED).statistics) == [KEY]
    (sharded / 'dataset_statistics.json').unlink()
    with pytest.raises(HbvlaError, match='unknown statistics key.*bridge_orig'):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_missing_shard(sharded):
    (sharded / 'model-00002-of-00003.safetensors').unlink()
    with pytest.raises(HbvlaError, match='model-00002-of-00003.safetensors: missing shard'):
        Checkpoint.open(sharded, ALOHA_KEYED)


@pytest.mark.parametrize('size', [4, 1000, -1])
def test_truncated_shard(sharded, size):
    path = sharded / 'model-00002-of-00003.safetensors'
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(HbvlaError, match='model-00002-of-00003.safetensors: truncated'):
        Checkpoint.open(sharded, ALOHA_KEYED)


@pytest.mark.parametrize('size', [0, 10, 2000])
def test_truncated_side_file(sharded, size):
    path = sharded / 'action_head--1_checkpoint.pt'
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(HbvlaError, match='action_head--1_checkpoint.pt: truncated'):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_side_file_of_an_old_torch(sharded):
    wanted = Checkpoint.open(sharded, ALOHA_KEYED).tensor('action_head.model.fc2.weight').clone()
    path = sharded / 'action_head--1_checkpoint.pt'
    content = torch.load(path, weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    actual = Checkpoint.open(sharded, ALOHA_KEYED).tensor('action_head.model.fc2.weight')
    torch.testing.assert_close(actual, wanted, atol=0, rtol=0)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(HbvlaError, match='truncated or not a state dict'):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_side_file_that_is_no_state_dict(sharded):
    torch.save([1, 2], sharded / 'action_head--1_checkpoint.pt')
    with pytest.raises(HbvlaError, match='not a state dict of tensors'):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_side_file_with_code_is_not_run(sharded):
    marker = sharded / 'ran'

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({'model.fc1.weight': Evil()}, sharded / 'action_head--1_checkpoint.pt')
    with pytest.raises(HbvlaError, match='not a state dict'):
        Checkpoint.open(sharded, ALOHA_KEYED)
    assert not marker.exists()


def test_two_steps_of_a_side_file(sharded):
    shutil.copy(sharded / 'action_head--1_checkpoint.pt', sharded / 'action_head--2_checkpoint.pt')
    with pytest.raises(HbvlaError, match='several action_head files .*--1_.*--2_.*keep one step'):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_unreadable_index(sharded):
    (sharded / 'model.safetensors.index.json').write_text('{}')
    with pytest.raises(HbvlaError, match='not a readable shard index'):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_index_promises_a_tensor_that_no_shard_has(sharded):
    path = sharded / 'model.safetensors.index.json'
    index = json.loads(path.read_text())
    index['weight_map']['projector.fc9.weight'] = 'model-00001-of-00003.safetensors'
    path.write_text(json.dumps(index))
    with pytest.raises(HbvlaError, match="model-00001-of-00003.*lacks the tensor 'projector.fc9"):
        Checkpoint.open(sharded, ALOHA_KEYED)


def test_missing_tensor(tiny_checkpoint):
    rewrite(tiny_checkpoint / 'model.safetensors', lambda t: t.pop('projector.fc2.bias'))
    with pytest.raises(HbvlaError, match="the tensor 'projector.fc2.bias' is missing"):
        open_tiny(tiny_checkpoint)


def test_wrong_shape(tiny_checkpoint):
    rewrite(
        tiny_checkpoint / 'model.safetensors',
        lambda t: t.update({'projector.fc2.bias': torch.zeros(31)}),
    )
    with pytest.raises(HbvlaError, match=r"'projector.fc2.bias' has shape \(31,\), .* \(32,\)"):
        open_tiny(tiny_checkpoint)


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'proprio_dim': 8}, "proprio_dim 14, but platform 'tiny' has 8"),
        ({'proprio_dim': 0}, "proprio_dim 14, but platform 'tiny' has 0"),
        ({'action_dim': 7}, "action_dim 14, but platform 'tiny' has 7"),
        ({'action_slots_per_step': 14}, '2 action slots a step, but'),
        ({'statistics_key': 'other'}, "unknown statistics key 'other'.*tiny"),
    ],
)
def test_platform_that_does_not_fit(tiny_checkpoint, changes, words):
    with pytest.raises(HbvlaError, match=words):
        open_tiny(tiny_checkpoint, **changes)


def test_lost_proprio_projector_is_not_taken_for_a_policy_without(tiny_checkpoint):
    (tiny_checkpoint / 'proprio_projector--7_checkpoint.pt').unlink()
    with pytest.raises(HbvlaError, match=r'no proprio_projector--.*proprio_dim 14'):
        open_tiny(tiny_checkpoint)
    assert open_tiny(tiny_checkpoint, proprio_dim=0).platform.proprio_dim == 0


def test_lost_noisy_action_projector(make_tiny_checkpoint):
    folder = make_tiny_checkpoint(
        config={'head': 'diffusion'}, platform={'action_slots_per_step': None}
    )
    (folder / 'noisy_action_projector--7_checkpoint.pt').unlink()
    with pytest.raises(HbvlaError, match='needs noisy_action_projector'):
        open_tiny(folder)


def test_identity_tells_folders_apart(tiny_checkpoint, sharded):
    first = open_tiny(tiny_checkpoint).identity
    assert first == open_tiny(tiny_checkpoint).identity
    (tiny_checkpoint / 'README.md').write_text('its card')
    (tiny_checkpoint / 'log.jsonl').write_text('{"step": 1}')
    assert first == open_tiny(tiny_checkpoint).identity
    rewrite(tiny_checkpoint / 'model.safetensors', lambda t: t['projector.fc3.bias'].add_(1))
    assert first != open_tiny(tiny_checkpoint).identity
    assert first.startswith('tiny@')
