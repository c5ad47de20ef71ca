# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""LoRA adapters, merged while a tensor is read (spec sections 8 and 9)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.tensor_files import SafetensorsFile, TensorFile

_ADAPTER = re.compile(r'^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$')
_FILM_BLOCK = re.compile(r'(\.blocks\.\d+)\.block\.')


def lora_scale(rank: int) -> float:
    """Factor of B @ A: the reference trains with alpha = min(rank, 16)."""
    return min(rank, 16) / rank


def merge(base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Base plus scale * B @ A in float32.

    Args:
        base: (out, in), or (out, in, h, w) for a convolution.
        down: A, (r, in) or (r, in, h, w).
        up: B, (out, r) or (out, r, 1, 1).
        scale: factor of the product.
    """
    product = up.float().flatten(1) @ down.float().flatten(1)
    return base.float() + scale * product.reshape(base.shape)


@dataclass(frozen=True)
class Entry:
    """Where a tensor of the network comes from.

    Attributes:
        file: the file that holds it, under ``key``.
        shape: its shape.
        adapter: file and keys of LoRA's A and B and their scale, or None.
    """

    file: TensorFile
    key: str
    shape: tuple[int, ...]
    adapter: tuple[TensorFile, str, str, float] | None = None

    def tensor(self) -> Tensor:
        """The tensor; float32 where an adapter is merged, else as stored."""
        base = self.file.tensor(self.key)
        if self.adapter is None:
            return base
        file, down, up, scale = self.adapter
        with torch.no_grad():
            return merge(base, file.tensor(down), file.tensor(up), scale)

    def release(self) -> None:
        """Unmap the files it lies in."""
        self.file.release()
        if self.adapter is not None:
            self.adapter[0].release()


def _adapters(file: TensorFile, scale: float | None) -> dict[str, tuple[str, str, float]]:
    """Module path in the file to the keys of A and B and their scale."""
    shapes = file.shapes()
    sides: dict[str, dict[str, str]] = {}
    for key in shapes:
        match = _ADAPTER.match(key)
        if match:
            sides.setdefault(match['module'], {})[match['side']] = key
    found = {}
    for module, pair in sides.items():
        if set(pair) != {'A', 'B'}:
            raise HbvlaError(f'{file.path}: {module} has only one half of its LoRA pair')
        down, up = shapes[pair['A']], shapes[pair['B']]
        if down[0] != up[1]:
            raise HbvlaError(f'{file.path}: {module} has LoRA ranks {down[0]} and {up[1]}')
        found[module] = (pair['A'], pair['B'], lora_scale(down[0]) if scale is None else scale)
    return found


def _attach(entry: Entry, file: TensorFile, pair: tuple[str, str, float], name: str) -> Entry:
    """The entry with an adapter; raises HbvlaError if the shapes do not fit."""
    shapes = file.shapes()
    down, up = shapes[pair[0]], shapes[pair[1]]
    if (up[0], *down[1:]) != entry.shape:
        raise HbvlaError(
            f'{file.path}: LoRA of {name} gives shape {(up[0], *down[1:])}, the base has '
            f'{entry.shape}'
        )
    return replace(entry, adapter=(file, *pair))


def film_vision_entries(file: TensorFile) -> dict[str, Entry]:
    """Network names of a FiLM ``vision_backbone`` file, with its unmerged LoRA attached."""
    entries: dict[str, Entry] = {}
    for key, shape in file.shapes().items():
        if not _ADAPTER.match(key):
            entries[_film_name(key)] = Entry(file, key, shape)
    for module, pair in _adapters(file, None).items():
        name = _film_name(f'{module}.weight')
        if name not in entries:
            raise HbvlaError(f'{file.path}: LoRA of {module} has no base weight')
        entries[name] = _attach(entries[name], file, pair, name)
    return entries


def _film_name(key: str) -> str:
    return _FILM_BLOCK.sub(r'\1.', key).replace('.base_layer.', '.')


def find_adapter(folder: Path) -> Path | None:
    """The folder with adapter_model.safetensors: ``lora_adapter`` or the folder itself."""
    for place in (folder / 'lora_adapter', folder):
        if (place / 'adapter_model.safetensors').is_file():
            return place
    return None


def apply_adapter(entries: dict[str, Entry], place: Path, film: bool) -> dict[str, Entry]:
    """Attach a PEFT adapter to a base checkpoint's entries.

    Args:
        entries: network name to base tensor.
        place: folder of the adapter.
        film: the vision stack comes from its own file, so its part here is not used.

    Raises:
        HbvlaError: the adapter does not fit the base.
    """
    file = SafetensorsFile(place / 'adapter_model.safetensors')
    merged = dict(entries)
    for key, shape in file.shapes().items():
        name = _adapter_name(key)
        if not _ADAPTER.match(key) and not (film and name.startswith('vision_backbone.')):
            if name not in merged:
                raise HbvlaError(f'{file.path}: {name} is not in the base checkpoint')
            merged[name] = Entry(file, key, shape)
    for module, pair in _adapters(file, _configured_scale(place)).items():
        name = _adapter_name(f'{module}.weight')
        if name.startswith('vision_backbone.') and film:
            continue
        if name.startswith('vision_backbone.vision_backbone.'):
            raise HbvlaError(
                f'{place}: the adapter was trained with FiLM; its vision_backbone--*_checkpoint.pt '
                'is missing'
            )
        if name not in merged:
            raise HbvlaError(f'{file.path}: {name} is not in the base checkpoint')
        merged[name] = _attach(merged[name], file, pair, name)
    return merged


def _adapter_name(key: str) -> str:
    return key.removeprefix('base_model.model.').replace('.base_layer.', '.')


def _configured_scale(place: Path) -> float | None:
    """lora_alpha / r of adapter_config.json, or None if there is no such file."""
    path = place / 'adapter_config.json'
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
        if values.get('use_rslora') or values.get('use_dora') or values.get('rank_pattern'):
            raise HbvlaError(f'{path}: only plain LoRA of one rank is supported')
        return float(values['lora_alpha']) / float(values['r'])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise HbvlaError(f'{path}: not a readable adapter config ({error!r})') from None
