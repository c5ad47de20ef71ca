# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Configuration of the towers and of the language model, and how config.json tells them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hbvla_ros.errors import HbvlaError

Shapes = Mapping[str, tuple[int, ...]]
TOWERS = ('featurizer', 'fused_featurizer')


@dataclass(frozen=True)
class TowerConfig:
    """One vision transformer (timm layout). ``depth`` counts the last block, which never runs."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    patch_size: int
    image_size: tuple[int, int]
    num_reg_tokens: int = 0
    has_cls_token: bool = False
    layer_scale: bool = False
    attention_pool: bool = False

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size[0] // self.patch_size) * (self.image_size[1] // self.patch_size)

    @property
    def prefix_tokens(self) -> int:
        """Class and register tokens before the patches."""
        return int(self.has_cls_token) + self.num_reg_tokens


@dataclass(frozen=True)
class LanguageConfig:
    """The Llama decoder stack; the defaults are those of Hugging Face's LlamaConfig."""

    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    vocab_size: int = 32000
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


_KNOWN_TOWERS: Mapping[str, Mapping[str, Any]] = {
    'vit_large_patch14_reg4_dinov2.lvd142m': {
        'embed_dim': 1024, 'depth': 24, 'num_heads': 16, 'mlp_dim': 4096, 'patch_size': 14,
        'num_reg_tokens': 4, 'has_cls_token': True, 'layer_scale': True, 'attention_pool': False,
    },
    'vit_so400m_patch14_siglip_224': {
        'embed_dim': 1152, 'depth': 27, 'num_heads': 16, 'mlp_dim': 4304, 'patch_size': 14,
        'num_reg_tokens': 0, 'has_cls_token': False, 'layer_scale': False, 'attention_pool': True,
    },
}  # fmt: skip


class PartReader:
    """Takes one config.json apart; messages name the file and the key.

    Attributes:
        own: the section that holds what a real config.json leaves to the timm id.
    """

    def __init__(self, config: Mapping[str, Any], shapes: Shapes, source: str) -> None:
        """Read a parsed config.json; ``source`` is how messages name it."""
        self.config, self.shapes, self.source = config, shapes, source
        self.own: Mapping[str, Any] = config.get('hbvla') or config.get('golden') or {}

    def language(self) -> LanguageConfig:
        """The language model: ``text_config`` over the defaults of LlamaConfig."""
        text = dict(self.config.get('text_config') or {})
        supported = {
            'hidden_act': 'silu', 'attention_bias': False, 'rope_scaling': None,
            'tie_word_embeddings': False, 'model_type': 'llama',
        }  # fmt: skip
        for key, wanted in supported.items():
            if text.get(key, wanted) != wanted:
                raise HbvlaError(
                    f'{self.source}: text_config.{key} is {text[key]!r}, only {wanted!r} is '
                    'supported'
                )
        names = {field.name for field in dataclasses.fields(LanguageConfig)}
        values = {key: value for key, value in text.items() if key in names and value is not None}
        if 'num_key_value_heads' not in values:
            values['num_key_value_heads'] = values.get('num_attention_heads', 32)
        language = LanguageConfig(**values)
        heads, groups = language.num_attention_heads, language.num_key_value_heads
        if language.hidden_size % heads or heads % groups:
            raise HbvlaError(
                f'{self.source}: text_config: hidden_size {language.hidden_size}, {heads} heads '
                f'and {groups} key-value heads do not divide'
            )
        return language

    def tower(self, index: int) -> TowerConfig:
        """One tower: known timm id, then shapes, then the folder's own section."""
        name = TOWERS[index]
        identifiers = self.config.get('timm_model_ids') or [None, None]
        if len(identifiers) != 2:
            raise HbvlaError(f'{self.source}: timm_model_ids must name two towers')
        values: dict[str, Any] = dict(_KNOWN_TOWERS.get(str(identifiers[index]), {}))
        for key, value in self._from_shapes(f'vision_backbone.{name}.').items():
            values.setdefault(key, value)
        fields = {field.name for field in dataclasses.fields(TowerConfig)}
        given = self.own.get(name) or {}
        values.update({key: value for key, value in given.items() if key in fields})
        sizes = self.config.get('image_sizes', [224, 224])
        sizes = sizes if isinstance(sizes, list) else [sizes, sizes]
        values['image_size'] = (int(sizes[0]), int(sizes[1]))
        missing = [
            key
            for key in ('num_heads', 'embed_dim', 'depth', 'mlp_dim', 'patch_size')
            if key not in values
        ]
        if missing:
            raise HbvlaError(
                f'{self.source}: {missing[0]} of the tower {identifiers[index]!r} is unknown; '
                f'name it under hbvla.{name}'
            )
        return TowerConfig(**values)

    def _from_shapes(self, prefix: str) -> dict[str, Any]:
        """What the shapes tell of one tower; head counts are not among it."""
        shapes = {
            name[len(prefix) :]: shape
            for name, shape in self.shapes.items()
            if name.startswith(prefix)
        }
        values: dict[str, Any] = {}
        if 'patch_embed.proj.weight' in shapes:
            values['embed_dim'] = shapes['patch_embed.proj.weight'][0]
            values['patch_size'] = shapes['patch_embed.proj.weight'][2]
        blocks = {int(name.split('.')[1]) for name in shapes if name.startswith('blocks.')}
        if blocks:
            # A deployed folder leaves out the final norm together with the last block.
            values['depth'] = max(blocks) + (1 if 'norm.weight' in shapes else 2)
        if 'blocks.0.mlp.fc1.weight' in shapes:
            values['mlp_dim'] = shapes['blocks.0.mlp.fc1.weight'][0]
        if shapes:
            values['num_reg_tokens'] = shapes.get('reg_token', (1, 0))[1]
            values['has_cls_token'] = 'cls_token' in shapes
            values['layer_scale'] = 'blocks.0.ls1.scale_factor' in shapes
            values['attention_pool'] = 'attn_pool.latent' in shapes
        return values
