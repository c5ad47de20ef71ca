# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What kind of token stands where (spec 1.1): for token importance by type and over images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hbvla_ros.vla.config import TowerConfig
from hbvla_ros.vla.network import OpenVLANetwork

VISUAL, TEXT, PROPRIO, ACTION, OTHER = range(5)
NAMES = ('visual', 'text', 'proprio', 'action', 'other')


class Patches(NamedTuple):
    """Where the patches of one camera stand: a slice of positions, row by row of the image.

    Attributes:
        start: position of the first patch.
        stop: position after the last.
        rows: rows of the grid of patches.
        columns: columns of the grid.
    """

    start: int
    stop: int
    rows: int
    columns: int


def decoder_token_types(network: OpenVLANetwork, prompt_tokens: int) -> Tensor:
    """Type of every position of the decoder's sequence: int8 (S,).

    The sequence is BOS, patches, proprioception, diffusion time step, prompt, action slots, stop
    token; of these only BOS, patches, prompt, slots and stop are always there.

    Args:
        network: decides which parts there are and how long they are.
        prompt_tokens: T of ``input_ids`` (B, T), BOS included.
    """
    platform = network.platform
    parts = [(TEXT, 1), (VISUAL, len(platform.cameras) * network.config.featurizer.patches)]
    if platform.proprio_dim:
        parts.append((PROPRIO, 1))
    if network.config.head == 'diffusion':
        parts.append((OTHER, 1))
    parts += [(TEXT, prompt_tokens - 1), (ACTION, platform.action_slots), (TEXT, 1)]
    return torch.cat([torch.full((count,), kind, dtype=torch.int8) for kind, count in parts])


def decoder_patches(network: OpenVLANetwork) -> dict[str, Patches]:
    """Positions of every camera's patches in the decoder's sequence, in the network's order."""
    # One token, BOS, stands before the first image.
    return _patches(network, network.config.featurizer, 1, 0)


def tower_token_types(network: OpenVLANetwork, layer: str) -> Tensor:
    """Type of every token that a layer of a vision tower sees of one sample: int8 (n * T,).

    The images of a sample follow each other, each with its class and register tokens (other)
    before its patches.

    Args:
        network: whose towers and cameras count.
        layer: name of a layer of a tower.
    """
    config = _tower(network, layer)
    image = torch.full((config.prefix_tokens + config.patches,), VISUAL, dtype=torch.int8)
    image[: config.prefix_tokens] = OTHER
    return image.repeat(len(network.platform.cameras))


def tower_patches(network: OpenVLANetwork, layer: str) -> dict[str, Patches]:
    """Positions of every camera's patches among the tokens of :func:`tower_token_types`."""
    config = _tower(network, layer)
    return _patches(network, config, 0, config.prefix_tokens)


def _patches(
    network: OpenVLANetwork, config: TowerConfig, before: int, prefix: int
) -> dict[str, Patches]:
    """Grids of all cameras: ``before`` tokens first, ``prefix`` tokens before each image."""
    rows, columns = (side // config.patch_size for side in config.image_size)
    grids = {}
    for number, camera in enumerate(network.platform.cameras):
        start = before + number * (prefix + config.patches) + prefix
        grids[camera] = Patches(start, start + config.patches, rows, columns)
    return grids


def _tower(network: OpenVLANetwork, layer: str) -> TowerConfig:
    if layer.startswith('vision_backbone.fused_featurizer.'):
        return network.config.fused_featurizer
    if layer.startswith('vision_backbone.featurizer.'):
        return network.config.featurizer
    raise ValueError(f'{layer}: not a layer of a vision tower')
