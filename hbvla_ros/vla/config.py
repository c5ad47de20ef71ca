# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the network is made of, read from ``config.json`` and the shapes of its tensors."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError

Shapes = Mapping[str, tuple[int, ...]]
HEADS = ('l1', 'diffusion', 'discrete')
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


@dataclass(frozen=True)
class NetworkConfig:
    """The whole network.

    Attributes:
        featurizer: the DINOv2 tower, ``fused_featurizer``: the SigLIP tower.
        language: the language model.
        head: ``l1``, ``diffusion`` or ``discrete`` (action tokens from ``lm_head``).
        film: whether both towers are modulated by the mean word embedding.
        head_hidden_size: width of the action head; 0 stands for the language model's.
        head_blocks: residual blocks of the action head.
        has_language_head: whether an ``lm_head`` exists.
        bos_token_id, stop_token_id, empty_token_id, placeholder_token_id: special ids.
        action_vocabulary: ids below this, counted down, are the action bins.
        action_bins: edges of the action bins.
    """

    featurizer: TowerConfig
    fused_featurizer: TowerConfig
    language: LanguageConfig
    head: str = 'l1'
    film: bool = False
    head_hidden_size: int = 0
    head_blocks: int = 2
    has_language_head: bool = True
    bos_token_id: int = 1
    stop_token_id: int = 2
    empty_token_id: int = 29871
    placeholder_token_id: int = 1
    action_vocabulary: int = 32000
    action_bins: int = 256

    @property
    def vision_dim(self) -> int:
        """Width of the concatenated features of both towers."""
        return self.featurizer.embed_dim + self.fused_featurizer.embed_dim

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return self.featurizer.patches

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input images."""
        return self.featurizer.image_size

    @classmethod
    def from_json(
        cls,
        config: Mapping[str, Any],
        head: str = 'l1',
        film: bool = False,
        shapes: Shapes | None = None,
        source: str = 'config.json',
    ) -> NetworkConfig:
        """Read the content of a config.json.

        Args:
            config: the parsed file.
            head: kind of action head, as the side files tell.
            film: whether the folder holds a FiLM vision stack.
            shapes: shapes of the checkpoint's tensors by network name; needed where neither a
                known timm id nor the ``hbvla`` section says the widths.
            source: how messages name the file.

        Raises:
            HbvlaError: an unsupported or missing setting, by its name.
        """
        reader = _ConfigReader(config, shapes or {}, source)
        own = reader.own
        language = reader.language()
        hidden, head_blocks = language.hidden_size, own.get('head_blocks', 2)
        head_hidden = int(own.get('head_hidden_size', 0))
        for name, shape in (shapes or {}).items():
            if name.startswith('action_head.') and name.endswith(('model.fc1.weight',
                                                                  'mlp_resnet.fc1.weight')):
                head_hidden = 0 if shape[0] == hidden else shape[0]
        if shapes:
            blocks = {name.split('mlp_resnet_blocks.')[1].split('.')[0]
                      for name in shapes if 'mlp_resnet_blocks.' in name}
            head_blocks = len(blocks) if blocks else head_blocks
        has_language_head = not shapes or 'language_model.lm_head.weight' in shapes
        text = config.get('text_config', {})
        return cls(
            featurizer=reader.tower(0),
            fused_featurizer=reader.tower(1),
            language=language,
            head=head,
            film=film,
            head_hidden_size=head_hidden,
            head_blocks=int(head_blocks),
            has_language_head=has_language_head or head == 'discrete',
            bos_token_id=int(text.get('bos_token_id', 1)),
            stop_token_id=int(own.get('stop_token_id', text.get('eos_token_id', 2))),
            empty_token_id=int(own.get('empty_token_id', 29871)),
            placeholder_token_id=int(own.get('placeholder_token_id', 1)),
            action_vocabulary=language.vocab_size - int(config.get('pad_to_multiple_of', 64)),
            action_bins=int(config.get('n_action_bins', 256)),
        )

    def to_json(self) -> dict[str, Any]:
        """Content of a config.json in the Hugging Face layout that :meth:`from_json` reads."""
        towers = {}
        for name in TOWERS:
            tower = dataclasses.asdict(getattr(self, name))
            del tower['image_size']
            towers[name] = tower
        return {
            'model_type': 'openvla',
            'architectures': ['OpenVLAForActionPrediction'],
            'arch_specifier': 'no-align+fused-gelu-mlp',
            'use_fused_vision_backbone': True,
            'timm_model_ids': ['hbvla_small_dinov2', 'hbvla_small_siglip'],
            'image_sizes': list(self.image_size),
            'image_resize_strategy': 'resize-naive',
            'pad_to_multiple_of': self.language.vocab_size - self.action_vocabulary,
            'n_action_bins': self.action_bins,
            'torch_dtype': 'bfloat16',
            'text_config': {
                'model_type': 'llama',
                'bos_token_id': self.bos_token_id,
                'eos_token_id': self.stop_token_id,
                **dataclasses.asdict(self.language),
            },
            'hbvla': {
                **towers,
                'head_hidden_size': self.head_hidden_size,
                'head_blocks': self.head_blocks,
                'empty_token_id': self.empty_token_id,
                'stop_token_id': self.stop_token_id,
                'placeholder_token_id': self.placeholder_token_id,
            },
        }


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


class _ConfigReader:
    """Takes one config.json apart; messages name the file and the key."""

    def __init__(self, config: Mapping[str, Any], shapes: Shapes, source: str) -> None:
        self.config, self.shapes, self.source = config, shapes, source
        self.own: Mapping[str, Any] = config.get('hbvla') or config.get('golden') or {}

    def language(self) -> LanguageConfig:
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
            key for key in ('num_heads', 'embed_dim', 'depth', 'mlp_dim', 'patch_size')
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
            name[len(prefix):]: shape for name, shape in self.shapes.items()
            if name.startswith(prefix)
        }
        values: dict[str, Any] = {}
        if 'patch_embed.proj.weight' in shapes:
            values['embed_dim'] = shapes['patch_embed.proj.weight'][0]
            values['patch_size'] = shapes['patch_embed.proj.weight'][2]
        blocks = {int(name.split('.')[1]) for name in shapes if name.startswith('blocks.')}
        if blocks:
            values['depth'] = max(blocks) + 1
        if 'blocks.0.mlp.fc1.weight' in shapes:
            values['mlp_dim'] = shapes['blocks.0.mlp.fc1.weight'][0]
        if shapes:
            values['num_reg_tokens'] = shapes.get('reg_token', (1, 0))[1]
            values['has_cls_token'] = 'cls_token' in shapes
            values['layer_scale'] = 'blocks.0.ls1.scale_factor' in shapes
            values['attention_pool'] = 'attn_pool.latent' in shapes
        return values


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The parsed config.json of a folder; raises HbvlaError if there is none."""
    path = Path(folder) / 'config.json'
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise HbvlaError(f'{folder}: no config.json; is this a checkpoint folder?') from None
    except (OSError, ValueError) as error:
        raise HbvlaError(f'{path}: not readable ({error})') from None
    if not isinstance(values, dict):
        raise HbvlaError(f'{path}: a config holds one JSON object')
    return values
