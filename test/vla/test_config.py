# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.config import NetworkConfig, read_config
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.platform import ALOHA, LIBERO

SHAPES = Path(__file__).parents[1] / 'golden' / 'openvla_oft_param_shapes.tsv'
# What a real folder's config.json says; everything else is a default of Hugging Face's LlamaConfig.
REAL_CONFIG = {
    'model_type': 'openvla',
    'arch_specifier': 'no-align+fused-gelu-mlp',
    'use_fused_vision_backbone': True,
    'timm_model_ids': ['vit_large_patch14_reg4_dinov2.lvd142m', 'vit_so400m_patch14_siglip_224'],
    'timm_override_act_layers': [None, None],
    'image_sizes': [224, 224],
    'llm_max_length': 2048,
    'pad_token_id': 32000,
    'pad_to_multiple_of': 64,
    'n_action_bins': 256,
    'text_config': {
        'model_type': 'llama',
        'pad_token_id': 32000,
        'torch_dtype': 'bfloat16',
        'vocab_size': 32064,
    },
}
SIDE = ('action_head.', 'proprio_projector.')


def real_shapes() -> dict:
    rows = [line.split('\t') for line in SHAPES.read_text().splitlines() if line]
    return {row[0]: ast.literal_eval(row[1]) for row in rows}


def count(shapes) -> int:
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def test_all_names_and_shapes_of_the_real_checkpoint():
    network = build_empty(NetworkConfig.from_json(REAL_CONFIG), ALOHA, inference_only=False)
    ours = {
        name: tuple(parameter.shape)
        for name, parameter in network.state_dict().items()
        if not name.startswith(SIDE)
    }
    assert len(ours) == 982
    assert ours == real_shapes()
    assert count(ours.values()) == 7_541_237_184
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize('platform, size', [(LIBERO, 151_117_831), (ALOHA, 268_644_366)],
                         ids=['libero', 'aloha'])  # fmt: skip
def test_size_of_the_real_action_head(platform, size):
    network = build_empty(NetworkConfig.from_json(REAL_CONFIG), platform)
    assert count(parameter.shape for parameter in network.action_head.parameters()) == size


def test_film_adds_what_the_real_stack_adds():
    plain = build_empty(NetworkConfig.from_json(REAL_CONFIG), ALOHA, inference_only=False)
    film = build_empty(NetworkConfig.from_json(REAL_CONFIG, film=True), ALOHA, inference_only=False)
    sizes = [count(p.shape for p in network.parameters()) for network in (plain, film)]
    assert sizes[1] - sizes[0] == 456_241_920


def test_inference_leaves_out_exactly_what_no_action_depends_on():
    config = NetworkConfig.from_json(REAL_CONFIG)
    everything = set(build_empty(config, ALOHA, inference_only=False).state_dict())
    needed = set(build_empty(config, ALOHA).state_dict())
    unused = everything - needed
    assert needed < everything
    places = ('featurizer.blocks.23.', 'fused_featurizer.blocks.26.', 'featurizer.norm.',
              'fused_featurizer.norm.', 'fused_featurizer.attn_pool.')  # fmt: skip
    prefixes = tuple(f'vision_backbone.{place}' for place in places)
    assert unused == {
        name for name in everything if name.startswith((*prefixes, 'language_model.lm_head.'))
    }


def test_defaults_of_the_language_model_are_hugging_faces():
    language = NetworkConfig.from_json(REAL_CONFIG).language
    assert (language.rms_norm_eps, language.rope_theta) == (1e-6, 10000.0)
    assert (language.num_key_value_heads, language.head_dim) == (32, 128)
    assert NetworkConfig.from_json(REAL_CONFIG).action_vocabulary == 32000


def test_key_value_heads_default_to_all_heads():
    text = {'hidden_size': 64, 'num_attention_heads': 4, 'num_key_value_heads': None}
    config = NetworkConfig.from_json({**REAL_CONFIG, 'text_config': text})
    assert config.language.num_key_value_heads == 4


@pytest.mark.parametrize(
    'text, words',
    [
        ({'rope_scaling': {'type': 'linear'}}, 'text_config.rope_scaling'),
        ({'hidden_act': 'gelu'}, 'text_config.hidden_act'),
        ({'attention_bias': True}, 'text_config.attention_bias'),
        ({'model_type': 'mistral'}, 'text_config.model_type'),
        ({'num_attention_heads': 5}, 'do not divide'),
        ({'num_attention_heads': 8, 'num_key_value_heads': 3}, 'do not divide'),
    ],
)
def test_unsupported_language_model(text, words):
    with pytest.raises(HbvlaError, match=words):
        NetworkConfig.from_json({**REAL_CONFIG, 'text_config': text})


def test_unknown_tower_says_where_to_name_it():
    config = {**REAL_CONFIG, 'timm_model_ids': ['vit_giant', 'vit_so400m_patch14_siglip_224']}
    with pytest.raises(HbvlaError, match="num_heads of the tower 'vit_giant'.*hbvla.featurizer"):
        NetworkConfig.from_json(config)


def test_json_round_trip(tiny_checkpoint):
    config = NetworkConfig.from_json(read_config(tiny_checkpoint))
    assert NetworkConfig.from_json(config.to_json()) == config
    assert config.language.num_key_value_heads == 2
    assert config.patches == 4 and config.empty_token_id == 3


def test_depth_counts_the_last_block_that_a_deployed_folder_leaves_out():
    full = {
        'vision_backbone.featurizer.patch_embed.proj.weight': (8, 3, 16, 16),
        'vision_backbone.featurizer.blocks.0.mlp.fc1.weight': (32, 8),
        'vision_backbone.featurizer.blocks.2.mlp.fc1.weight': (32, 8),
        'vision_backbone.featurizer.norm.weight': (8,),
    }
    config = {
        **REAL_CONFIG,
        'timm_model_ids': ['mine', 'vit_so400m_patch14_siglip_224'],
        'hbvla': {'featurizer': {'num_heads': 2}},
    }
    assert NetworkConfig.from_json(config, shapes=full).featurizer.depth == 3
    deployed = {name: shape for name, shape in full.items() if 'norm' not in name}
    assert NetworkConfig.from_json(config, shapes=deployed).featurizer.depth == 4


@pytest.mark.parametrize('text', ['{', '3', None])
def test_unreadable_config_file(tmp_path, text):
    if text is not None:
        (tmp_path / 'config.json').write_text(text)
    with pytest.raises(HbvlaError, match=r'config\.json'):
        read_config(tmp_path)
