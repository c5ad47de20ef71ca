# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options of a training run and the network it trains."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hbvla_ros.training.tokenizer import BEGIN_ID, EMPTY_ID, END_ID
from hbvla_ros.vla.config import LanguageConfig, NetworkConfig, TowerConfig
from hbvla_ros.vla.platform import Platform

# Rows of the word embedding beyond the tokenizer's ids, as Llama's padded vocabulary has.
VOCABULARY_PADDING = 64


@dataclass(frozen=True)
class NetworkSize:
    """Size of the small policy; the structure is OpenVLA-OFT's.

    The last block of each tower never runs (features come from the one before), so a depth of 4
    means 3 blocks at work.
    """

    image_size: int = 96
    patch_size: int = 24
    tower_width: int = 128
    tower_depth: int = 4
    tower_heads: int = 4
    registers: int = 4
    hidden: int = 256
    intermediate: int = 688
    layers: int = 4
    heads: int = 4
    vocabulary: int = 448


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides the outcome of a run besides the demonstrations.

    Attributes:
        steps: optimizer steps of the whole run, resumed parts included.
        optimizer: 'muon' for the matrices inside the network, with AdamW for the rest; or 'adamw'.
        decay: share of the steps, at the end, over which the rate falls to zero along a cosine.
        auxiliary_weight: weight of the object-localisation losses, dropped after training.
        crop_jitter: largest shift of the centre crop in pixels of the resized image.
        shares: how much of a batch a task gets, relative to the others; 1 where it is not named.
    """

    steps: int = 6000
    batch: int = 64
    optimizer: str = 'muon'
    learning_rate: float = 8e-4
    warm_up: int = 200
    decay: float = 0.5
    weight_decay: float = 0.05
    averaging: float = 0.998
    auxiliary_weight: float = 0.3
    crop_jitter: float = 1.0
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    threads: int = 1
    compile: bool = True

    def to_json(self) -> dict[str, Any]:
        """The options as plain numbers, for the model card and the resume file."""
        return asdict(self)


def network_config(size: NetworkSize) -> NetworkConfig:
    """Configuration of the small policy's network."""

    def tower(**prefix: Any) -> TowerConfig:
        return TowerConfig(
            embed_dim=size.tower_width,
            depth=size.tower_depth,
            num_heads=size.tower_heads,
            mlp_dim=4 * size.tower_width,
            patch_size=size.patch_size,
            image_size=(size.image_size, size.image_size),
            **prefix,
        )

    return NetworkConfig(
        featurizer=tower(num_reg_tokens=size.registers, has_cls_token=True, layer_scale=True),
        fused_featurizer=tower(),
        language=LanguageConfig(
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            vocab_size=size.vocabulary + VOCABULARY_PADDING,
        ),
        has_language_head=False,
        bos_token_id=BEGIN_ID,
        stop_token_id=END_ID,
        empty_token_id=EMPTY_ID,
        placeholder_token_id=BEGIN_ID,
        action_vocabulary=size.vocabulary,
    )


# The simulated robot's conventions: 128-pixel cameras, 25 Hz, 14 absolute joint targets.
ALOHA_SIM = Platform(
    name='aloha_sim',
    robot='aloha_sim',
    cameras=('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    chunk=10,
    action_dim=14,
    proprio_dim=14,
    step=0.04,
    normalisation='bounds',
    # OpenVLA-OFT gives every action value a slot of its own; at this size two slots for a row (one
    # an arm) lose nothing and halve the sequence.
    action_slots_per_step=2,
    jpeg_round_trip=True,
    center_crop=True,
)
