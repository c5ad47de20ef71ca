# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Files that hold tensors, read through memory mapping (spec section 1.1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hbvla_ros.errors import HbvlaError

INDEX_NAME = 'model.safetensors.index.json'


class TensorFile:
    """One file of named tensors; the file is mapped, so a tensor costs memory once it is used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name in the file."""
        raise NotImplementedError

    def tensor(self, name: str) -> Tensor:
        """The tensor, sharing memory with the mapped file."""
        raise NotImplementedError

    def release(self) -> None:
        """Unmap the file as soon as no tensor of it is in use; it is mapped again when needed."""
        raise NotImplementedError


class SafetensorsFile(TensorFile):
    """A .safetensors file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._handle: Any = None

    def _open(self) -> Any:
        if self._handle is None:
            try:
                self._handle = safe_open(self.path, framework='pt')
            except FileNotFoundError:
                raise HbvlaError(f'{self.path}: missing shard; copy it again') from None
            except (SafetensorError, OSError) as error:
                raise HbvlaError(
                    f'{self.path}: truncated or damaged shard ({error}); copy it again'
                ) from None
        return self._handle

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name in the file."""
        handle = self._open()
        return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118

    def tensor(self, name: str) -> Tensor:
        """The tensor, sharing memory with the mapped file."""
        return self._open().get_tensor(name)

    def release(self) -> None:
        """Unmap the file as soon as no tensor of it is in use."""
        self._handle = None


class PickledFile(TensorFile):
    """A ``torch.save`` state dict; a leading ``module.`` of its names is removed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tensors: dict[str, Tensor] | None = None

    def _load(self) -> Any:
        """The file's content; only files of before torch 1.6 cannot be mapped."""
        try:
            mapped = _starts_as_zip(self.path)
            return torch.load(self.path, map_location='cpu', weights_only=True, mmap=mapped)
        except FileNotFoundError:
            raise HbvlaError(f'{self.path}: missing; copy it again') from None
        except Exception as error:  # Damaged files make torch raise errors of many kinds.
            raise HbvlaError(
                f'{self.path}: truncated or not a state dict ({error}); copy it again'
            ) from None

    def _open(self) -> dict[str, Tensor]:
        if self._tensors is None:
            content = self._load()
            if not isinstance(content, dict) or not all(
                isinstance(value, Tensor) for value in content.values()
            ):
                raise HbvlaError(f'{self.path}: not a state dict of tensors')
            self._tensors = {name.removeprefix('module.'): content[name] for name in content}
        return self._tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name in the file."""
        return {name: tuple(tensor.shape) for name, tensor in self._open().items()}

    def tensor(self, name: str) -> Tensor:
        """The tensor, sharing memory with the mapped file."""
        return self._open()[name]

    def release(self) -> None:
        """Unmap the file as soon as no tensor of it is in use."""
        self._tensors = None


def _starts_as_zip(path: Path) -> bool:
    with path.open('rb') as stream:
        return stream.read(2) == b'PK'


def find_shards(folder: Path) -> list[Path]:
    """The model's safetensors files by the index, else by their names; empty if there are none."""
    index = folder / INDEX_NAME
    if index.is_file():
        return sorted({folder / shard for shard in read_index(folder).values()})
    single = folder / 'model.safetensors'
    return [single] if single.is_file() else sorted(folder.glob('model-*-of-*.safetensors'))


def read_index(folder: Path) -> dict[str, str]:
    """Tensor name to shard name, from the index file."""
    path = folder / INDEX_NAME
    try:
        mapping = json.loads(path.read_text(encoding='utf-8'))['weight_map']
        return {str(name): str(shard) for name, shard in mapping.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HbvlaError(f'{path}: not a readable shard index ({error!r})') from None


def locate_tensors(folder: Path) -> dict[str, SafetensorsFile]:
    """Tensor name to the shard that holds it; a layer may straddle two shards.

    Raises:
        HbvlaError: a shard is missing or truncated, or lacks a tensor the index promises.
    """
    files = {path.name: SafetensorsFile(path) for path in find_shards(folder)}
    located = {name: file for file in files.values() for name in file.shapes()}
    if (folder / INDEX_NAME).is_file():
        for name, shard in read_index(folder).items():
            if name not in located:
                raise HbvlaError(f'{folder / shard}: lacks the tensor {name!r} of the index')
    return located


def find_side_file(folder: Path, component: str) -> PickledFile | None:
    """The one side file of a component, or None.

    Raises:
        HbvlaError: several training steps lie side by side.
    """
    matches: Sequence[Path] = sorted(folder.glob(f'*{component}*checkpoint*.pt'))
    if len(matches) > 1:
        names = ', '.join(path.name for path in matches)
        raise HbvlaError(f'{folder}: several {component} files ({names}); keep one step')
    return PickledFile(matches[0]) if matches else None
