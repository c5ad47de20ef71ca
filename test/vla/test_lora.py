# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.lora import lora_scale, merge
from hbvla_ros.vla.platform import Platform

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'


@pytest.mark.parametrize('rank, scale', [(32, 0.5), (64, 0.25), (16, 1.0), (8, 1.0), (1, 1.0)])
def test_scale(rank, scale):
    assert lora_scale(rank) == scale


def test_merge_by_hand():
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.bfloat16)
    down, up = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0], [0.0], [4.0]])
    merged = merge(base, down, up, 0.5)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, torch.tensor([[2.0, 1.0], [3.0, 4.0], [7.0, 4.0]]))


def test_merge_of_a_convolution_equals_the_two_convolutions():
    torch.manual_seed(0)
    base, down, up = torch.randn(5, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(5, 2, 1, 1)
    images = torch.randn(1, 3, 8, 8)
    conv = torch.nn.functional.conv2d
    wanted = conv(images, base, stride=4) + 0.5 * conv(conv(images, down, stride=4), up)
    actual = conv(images, merge(base, down, up, 0.5), stride=4)
    torch.testing.assert_close(actual, wanted, atol=1e-4, rtol=1e-4)


def write_adapter(folder: Path, tensors: dict, rank: int = 4) -> None:
    adapter = folder / 'lora_adapter'
    adapter.mkdir(parents=True)
    save_file(tensors, adapter / 'adapter_model.safetensors')
    config = {'peft_type': 'LORA', 'r': rank, 'lora_alpha': min(rank, 16)}
    (adapter / 'adapter_config.json').write_text(json.dumps(config))


@pytest.fixture
def adapter_folder(tiny_checkpoint, tmp_path):
    """A folder with side files and an adapter, but without model shards."""
    folder = tmp_path / 'adapted'
    shutil.copytree(tiny_checkpoint, folder)
    (folder / 'model.safetensors').unlink()
    return folder


def pairs(rank: int = 4) -> dict:
    torch.manual_seed(3)
    root = 'base_model.model.'
    shapes = {
        'language_model.model.layers.0.self_attn.q_proj': (32, 32),
        'projector.fc1': (160, 40),
        'vision_backbone.featurizer.blocks.0.attn.qkv': (48, 16),
    }
    tensors = {}
    for module, (rows, columns) in shapes.items():
        tensors[f'{root}{module}.lora_A.weight'] = torch.randn(rank, columns)
        tensors[f'{root}{module}.lora_B.weight'] = torch.randn(rows, rank)
    tensors[f'{root}language_model.lm_head.base_layer.weight'] = torch.ones(128, 32)
    tensors[f'{root}vision_backbone.featurizer.patch_embed.proj.lora_A.weight'] = torch.randn(
        rank, 3, 16, 16
    )
    tensors[f'{root}vision_backbone.featurizer.patch_embed.proj.lora_B.weight'] = torch.randn(
        16, rank, 1, 1
    )
    return tensors


def test_adapter_folder_is_merged_onto_the_base(adapter_folder, tiny_checkpoint):
    tensors = pairs(32)
    write_adapter(adapter_folder, tensors, 32)
    platform = Platform.read(adapter_folder / 'platform.json')
    merged = Checkpoint.open(adapter_folder, platform, base=tiny_checkpoint)
    base = load_file(tiny_checkpoint / 'model.safetensors')
    for module in ('language_model.model.layers.0.self_attn.q_proj', 'projector.fc1',
                   'vision_backbone.featurizer.blocks.0.attn.qkv'):  # fmt: skip
        down = tensors[f'base_model.model.{module}.lora_A.weight']
        up = tensors[f'base_model.model.{module}.lora_B.weight']
        wanted = base[f'{module}.weight'].float() + 0.5 * up @ down
        torch.testing.assert_close(merged.tensor(f'{module}.weight'), wanted)
    untouched = 'language_model.model.layers.1.self_attn.q_proj.weight'
    torch.testing.assert_close(merged.tensor(untouched), base[untouched])
    assert merged.tensor('language_model.lm_head.weight').eq(1).all()
    name = 'vision_backbone.featurizer.patch_embed.proj.weight'
    assert merged.tensor(name).shape == (16, 3, 16, 16)
    assert (merged.tensor(name) - base[name].float()).abs().max() > 0.1
    network = merged.load_network()
    torch.testing.assert_close(
        network.vision_backbone.featurizer.patch_embed.proj.weight.data, merged.tensor(name)
    )


def test_adapter_is_ignored_where_merged_shards_are_there(tiny_checkpoint):
    write_adapter(tiny_checkpoint, pairs())
    platform = Platform.read(tiny_checkpoint / 'platform.json')
    opened = Checkpoint.open(tiny_checkpoint, platform)
    stored = load_file(tiny_checkpoint / 'model.safetensors')
    torch.testing.assert_close(opened.tensor('projector.fc1.weight'),
                               stored['projector.fc1.weight'])  # fmt: skip


def test_adapter_without_base(adapter_folder):
    write_adapter(adapter_folder, pairs())
    platform = Platform.read(adapter_folder / 'platform.json')
    with pytest.raises(HbvlaError, match='holds only a LoRA adapter; name the folder of its base'):
        Checkpoint.open(adapter_folder, platform)


def test_neither_shards_nor_adapter(adapter_folder):
    platform = Platform.read(adapter_folder / 'platform.json')
    with pytest.raises(HbvlaError, match=r'no model\*\.safetensors and no lora_adapter'):
        Checkpoint.open(adapter_folder, platform)


def drop(tensors, name):
    del tensors[f'base_model.model.{name}']


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda t: drop(t, 'projector.fc1.lora_B.weight'), 'projector.fc1 has only one half'),
        (
            lambda t: t.update(
                {'base_model.model.projector.fc1.lora_B.weight': torch.ones(160, 3)}
            ),
            'LoRA ranks 4 and 3',
        ),
        (
            lambda t: t.update({'base_model.model.projector.fc1.lora_A.weight': torch.ones(4, 41)}),
            r'projector.fc1.weight gives shape \(160, 41\), the base has \(160, 40\)',
        ),
        (
            lambda t: t.update(
                {
                    'base_model.model.projector.fc9.lora_A.weight': torch.ones(4, 4),
                    'base_model.model.projector.fc9.lora_B.weight': torch.ones(4, 4),
                }
            ),
            'projector.fc9.weight is not in the base',
        ),
    ],
)
def test_adapter_that_does_not_fit(adapter_folder, tiny_checkpoint, change, words):
    tensors = pairs()
    change(tensors)
    write_adapter(adapter_folder, tensors)
    platform = Platform.read(adapter_folder / 'platform.json')
    with pytest.raises(HbvlaError, match=words):
        Checkpoint.open(adapter_folder, platform, base=tiny_checkpoint)


def libero_film_platform() -> Platform:
    return Platform(
        'libero', 'libero', ('full', 'wrist'), 8, 7, 8, 0.05, 'bounds_q99',
        statistics_key='libero_spatial_no_noops',
    )  # fmt: skip


def test_film_run_saved_as_adapter_equals_its_merged_folder(tmp_path):
    """The golden FiLM folder ships its adapter: un-merge the base, merge again, compare."""
    source = GOLDEN / 'libero_film_l1'
    folder, base = tmp_path / 'run', tmp_path / 'base'
    shutil.copytree(source, folder)
    base.mkdir()
    shutil.copy(source / 'config.json', base)
    whole = Checkpoint.open(source, libero_film_platform())
    adapter = load_file(source / 'lora_adapter' / 'adapter_model.safetensors')
    unmerged = {}
    for shard in sorted(source.glob('model-*.safetensors')):
        for name, tensor in load_file(shard).items():
            key = f'base_model.model.{name.removesuffix(".weight")}'
            if f'{key}.lora_A.weight' in adapter:
                product = adapter[f'{key}.lora_B.weight'].float() @ (
                    adapter[f'{key}.lora_A.weight'].float())  # fmt: skip
                tensor = tensor.float() - 0.5 * product
            unmerged[name] = tensor
    save_file(unmerged, base / 'model.safetensors')
    for path in folder.glob('model*'):
        path.unlink()
    again = Checkpoint.open(folder, libero_film_platform(), base=base)
    assert again.config == whole.config and again.config.film
    for name in ('language_model.model.layers.2.mlp.down_proj.weight', 'projector.fc2.weight',
                 'vision_backbone.featurizer.blocks.1.attn.qkv.weight',
                 'vision_backbone.fused_featurizer.patch_embed.proj.weight'):  # fmt: skip
        torch.testing.assert_close(
            again.tensor(name).float(), whole.tensor(name).float(), atol=1e-5, rtol=1e-5
        )
    (folder / 'vision_backbone--1_checkpoint.pt').unlink()
    with pytest.raises(HbvlaError, match='trained with FiLM'):
        Checkpoint.open(folder, libero_film_platform(), base=base)
