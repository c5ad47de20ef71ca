# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Does a folder's content fit together, and fit the platform it is run with?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.config import NetworkConfig
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.part_configs import Shapes
from hbvla_ros.vla.platform import Platform


def build_empty(
    config: NetworkConfig, platform: Platform, inference_only: bool = True
) -> OpenVLANetwork:
    """The network without memory for its parameters (meta device)."""
    with torch.device('meta'):
        return OpenVLANetwork(config, platform, inference_only)


def assign(network: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter, without copying it."""
    path, _, leaf = name.rpartition('.')
    setattr(network.get_submodule(path), leaf, nn.Parameter(tensor))


def head_kind(shapes: Iterable[str]) -> str:
    """``diffusion``, ``l1`` or ``discrete``, from the names of the head's tensors."""
    names = [name for name in shapes if name.startswith('action_head.')]
    if not names:
        return 'discrete'
    return 'diffusion' if names[0].startswith('action_head.noise_predictor.') else 'l1'


def uses_film(shapes: Iterable[str]) -> bool:
    """Whether the towers' blocks have FiLM layers."""
    return any(
        name.startswith('vision_backbone.') and name.endswith('.scale.weight') for name in shapes
    )


def check_platform(folder: Path, config: NetworkConfig, platform: Platform, shapes: Shapes) -> None:
    """Raise HbvlaError where the side files contradict the platform's constants."""
    told = f'platform {platform.name!r} has'
    projector = shapes.get('proprio_projector.fc1.weight')
    if projector is None and platform.proprio_dim:
        raise HbvlaError(
            f'{folder}: no proprio_projector--*_checkpoint.pt, but {told} proprio_dim '
            f'{platform.proprio_dim}; copy the file, or set 0 if trained without'
        )
    if projector is not None and projector[1] != platform.proprio_dim:
        raise HbvlaError(
            f'{folder}: trained with proprio_dim {projector[1]}, but {told} {platform.proprio_dim}'
        )
    rows = _find(shapes, ('.model.fc2.weight', '.mlp_resnet.fc2.weight'))
    if rows and rows[0] != platform.action_dim:
        raise HbvlaError(
            f'{folder}: trained with action_dim {rows[0]}, but {told} {platform.action_dim}'
        )
    inputs = _find(shapes, ('.model.fc1.weight', '.mlp_resnet.fc1.weight'))
    if inputs and inputs[1] != platform.slots_per_step * config.language.hidden_size:
        slots = inputs[1] / config.language.hidden_size
        raise HbvlaError(
            f'{folder}: trained with {slots:g} action slots a step, but {told} '
            f'{platform.slots_per_step}'
        )
    if config.head == 'diffusion' and 'noisy_action_projector.fc1.weight' not in shapes:
        raise HbvlaError(
            f'{folder}: a diffusion head needs noisy_action_projector--*_checkpoint.pt; copy it'
        )


def check_shapes(folder: Path, config: NetworkConfig, platform: Platform, shapes: Shapes) -> None:
    """Raise HbvlaError naming the first tensor that is missing or has the wrong shape."""
    for name, parameter in build_empty(config, platform).named_parameters():
        if name not in shapes:
            raise HbvlaError(f'{folder}: the tensor {name!r} is missing')
        if shapes[name] != tuple(parameter.shape):
            raise HbvlaError(
                f'{folder}: {name!r} has shape {shapes[name]}, the network needs '
                f'{tuple(parameter.shape)}'
            )


def _find(shapes: Shapes, endings: tuple[str, ...]) -> tuple[int, ...]:
    """Shape of the action head's tensor with one of these endings, or nothing."""
    for name, shape in shapes.items():
        if name.startswith('action_head.') and name.endswith(endings):
            return shape
    return ()
