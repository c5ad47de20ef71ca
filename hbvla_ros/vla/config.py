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
from hbvla_ros.vla.part_configs import (
    TOWERS,
    LanguageConfig,
    PartReader,
    Shapes,
    TowerConfig,
)

HEADS = ('l1', 'diffusion', 'discrete')
__all__ = ['HEADS', 'LanguageConfig', 'NetworkConfig', 'TowerConfig', 'read_config']


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
        reader = PartReader(config, shapes or {}, source)
        own = reader.own
        language = reader.language()
        head_hidden, head_blocks = _head_sizes(own, shapes or {}, language.hidden_size)
        has_language_head = not shapes or 'language_model.lm_head.weight' in shapes
        text = config.get('text_config', {})
        return cls(
            featurizer=reader.tower(0),
            fused_featurizer=reader.tower(1),
            language=language,
            head=head,
            film=film,
            head_hidden_size=head_hidden,
            head_blocks=head_blocks,
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


def _head_sizes(own: Mapping[str, Any], shapes: Shapes, hidden_size: int) -> tuple[int, int]:
    """Width (0 for the language model's) and residual blocks of the action head."""
    width, blocks = int(own.get('head_hidden_size', 0)), int(own.get('head_blocks', 2))
    found = set()
    for name, shape in shapes.items():
        if name.startswith('action_head.') and name.endswith(
            ('model.fc1.weight', 'resnet.fc1.weight')
        ):
            width = 0 if shape[0] == hidden_size else shape[0]
        if name.startswith('action_head.') and 'mlp_resnet_blocks.' in name:
            found.add(name.split('mlp_resnet_blocks.')[1].split('.')[0])
    return width, len(found) or blocks
