# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Write a network as a folder in the Hugging Face layout of OpenVLA-OFT (spec section 1)."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.images import Preprocessor
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import Platform

SIDE_MODULES = ('action_head', 'proprio_projector', 'noisy_action_projector')


def write_replacing(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, then give it the wanted name."""
    temporary = path.with_name(path.name + '.tmp')
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(
    network: OpenVLANetwork,
    folder: str | os.PathLike[str],
    config_json: Mapping[str, Any] | None,
    statistics: Mapping[str, Any],
    platform: Platform,
    tokenizer: str | os.PathLike[str] | None = None,
    preprocessor: Preprocessor | None = None,
    step: int = 0,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write config, weights (bfloat16), side files, statistics, preprocessor and platform.

    Args:
        network: the network; its FiLM layers, if any, go to a ``vision_backbone`` file.
        folder: where to; made if missing, files of the same name are replaced.
        config_json: content of config.json; None for ``network.config.to_json()``.
        statistics: content of dataset_statistics.json.
        platform: written as platform.json.
        tokenizer: a tokenizer.json to copy.
        preprocessor: image size and constants; None for the usual ones at the network's size.
        step: training step in the names of the side files.
        state: tensors to save instead of the network's own (averaged weights, say).

    Returns:
        The folder.

    Raises:
        HbvlaError: the folder already holds side files of another step.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_step(folder, step)
    tensors = dict(state if state is not None else network.state_dict())
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    for module in SIDE_MODULES:
        part = _take(tensors, f'{module}.')
        if part:
            kind = torch.bfloat16 if module == 'action_head' else torch.float32
            side = {f'module.{name}': tensor.to(kind).clone() for name, tensor in part.items()}
            path = folder / f'{module}--{step}_checkpoint.pt'
            write_replacing(path, functools.partial(torch.save, side))
    if network.config.film:
        _save_film_vision(tensors, folder / f'vision_backbone--{step}_checkpoint.pt')
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}

    def save_weights(target: Path) -> None:
        save_file(weights, target, metadata={'format': 'pt'})
        # safetensors makes its files readable to their owner alone.
        target.chmod(folder.stat().st_mode & 0o666)

    write_replacing(folder / 'model.safetensors', save_weights)
    preprocessor = preprocessor or Preprocessor(network.config.image_size)
    write_json(folder / 'config.json', config_json or network.config.to_json())
    write_json(folder / 'dataset_statistics.json', statistics)
    write_json(folder / 'preprocessor_config.json', preprocessor.to_json())
    platform.write(folder / 'platform.json')
    if tokenizer is not None:
        source = Path(tokenizer)
        write_replacing(folder / 'tokenizer.json', lambda target: shutil.copyfile(source, target))
    return folder


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors of one module and return them without its prefix."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name[len(prefix) :]: tensors.pop(name) for name in names}


def _save_film_vision(tensors: dict[str, Tensor], path: Path) -> None:
    """Write the whole vision stack with FiLM in the reference's names; keep the base weights."""
    vision: dict[str, Tensor] = {}
    for name in [name for name in tensors if name.startswith('vision_backbone.')]:
        parts = name.split('.')
        if parts[2] == 'blocks' and parts[4] in ('scale', 'shift'):
            vision[name] = tensors.pop(name).float().clone()
        elif parts[2] == 'blocks':
            renamed = '.'.join([*parts[:4], 'block', *parts[4:]])
            vision[renamed] = tensors[name].to(torch.bfloat16).clone()
        else:
            vision[name] = tensors[name].to(torch.bfloat16).clone()
    write_replacing(path, lambda target: torch.save(vision, target))


def _refuse_other_step(folder: Path, step: int) -> None:
    for module in (*SIDE_MODULES, 'vision_backbone'):
        for path in folder.glob(f'{module}--*_checkpoint.pt'):
            if path.name != f'{module}--{step}_checkpoint.pt':
                raise HbvlaError(
                    f'{folder}: holds {path.name} of another step; choose another folder'
                )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write indented JSON under a temporary name, then rename it."""
    text = json.dumps(values, indent=2) + '\n'
    write_replacing(path, lambda target: target.write_text(text, encoding='utf-8'))
