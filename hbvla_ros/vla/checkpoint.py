# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Reader of OpenVLA-OFT folders in the Hugging Face layout (spec section 1)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.config import NetworkConfig, read_config
from hbvla_ros.vla.consistency import (
    assign,
    build_empty,
    check_platform,
    check_shapes,
    head_kind,
    uses_film,
)
from hbvla_ros.vla.export import SIDE_MODULES
from hbvla_ros.vla.lora import Entry, apply_adapter, film_vision_entries, find_adapter
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.normalisation import read_statistics, select_statistics
from hbvla_ros.vla.platform import Platform
from hbvla_ros.vla.tensor_files import TensorFile, find_side_file, locate_tensors

# Files that tell people about a policy and that nothing here reads.
_ABOUT = ('.md', '.jsonl')


@dataclass(frozen=True)
class Checkpoint:
    """A full-precision folder, mapped and not read: tensors are loaded when asked for.

    Attributes:
        folder: where it lies.
        config: what the network is made of.
        platform: the constants it is run with.
        statistics: all content of dataset_statistics.json.
        identity: folder name and a short digest of its files.
        base: folder of the base model where one was named, else None.
    """

    folder: Path
    config: NetworkConfig
    platform: Platform
    statistics: Mapping[str, Any]
    identity: str
    _entries: Mapping[str, Entry]
    base: Path | None = None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        platform: Platform,
        base: str | os.PathLike[str] | None = None,
    ) -> Checkpoint:
        """Read names and shapes and check them all against the network.

        Args:
            folder: the checkpoint folder.
            platform: its constants, which no file of a real folder tells.
            base: the base model's folder where ``folder`` holds only a LoRA adapter.

        Raises:
            HbvlaError: anything missing, truncated, of wrong shape, or that contradicts the
                platform; one line that names it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise HbvlaError(f'{folder}: no such checkpoint folder')
        if not (folder / 'config.json').is_file() and base is not None:
            config_json = read_config(base)
        else:
            config_json = read_config(folder)
        vision = find_side_file(folder, 'vision_backbone')
        entries = _model_entries(folder, base, film=vision is not None)
        if vision is not None:
            # The shards of a FiLM folder hold the un-adapted vision stack; its file replaces it.
            entries = {
                name: entry
                for name, entry in entries.items()
                if not name.startswith('vision_backbone.')
            }
            entries.update(film_vision_entries(vision))
        for module in SIDE_MODULES:
            file = find_side_file(folder, module)
            if file is not None:
                entries.update(_side_entries(file, module))
        shapes = {name: entry.shape for name, entry in entries.items()}
        config = NetworkConfig.from_json(
            config_json,
            head=head_kind(shapes),
            film=uses_film(shapes),
            shapes=shapes,
            source=str(folder / 'config.json'),
        )
        statistics = read_statistics(folder, config_json)
        select_statistics(statistics, platform.statistics_key)
        check_platform(folder, config, platform, shapes)
        check_shapes(folder, config, platform, shapes)
        return cls(
            folder,
            config,
            platform,
            statistics,
            folder_identity(folder),
            entries,
            None if base is None else Path(base),
        )

    @property
    def folders(self) -> list[Path]:
        """The folder and, where one was named, its base model's."""
        return [self.folder] if self.base is None else [self.folder, self.base]

    def place_of(self, name: str) -> Path:
        """The first of the folders that holds a file, else the folder itself."""
        return next((place for place in self.folders if (place / name).is_file()), self.folder)

    def names(self) -> list[str]:
        """Network names of all tensors in the folder."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._entry(name).shape

    def tensor(self, name: str) -> Tensor:
        """One tensor: mapped as stored, or float32 where LoRA is merged into it.

        Raises:
            HbvlaError: the folder has no tensor of that name.
        """
        return self._entry(name).tensor()

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise HbvlaError(f'{self.folder}: no tensor {name!r}')
        return self._entries[name]

    def release(self) -> None:
        """Unmap all files; they are mapped again when a tensor is asked for."""
        for entry in self._entries.values():
            entry.release()

    def load_network(
        self,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = 'cpu',
        inference_only: bool = True,
    ) -> OpenVLANetwork:
        """Build the network on the meta device and assign its tensors file by file.

        No second copy is held: a tensor of the wanted type is used where it lies in the mapped
        file, and a file that had to be converted is unmapped before the next one.

        Args:
            dtype: type of all parameters.
            device: where they go.
            inference_only: leave out what no action depends on.
        """
        network = build_empty(self.config, self.platform, inference_only)
        wanted = [name for name, _ in network.named_parameters()]
        for name, tensor in self._by_file(wanted):
            assign(network, name, tensor.to(device=device, dtype=dtype))
        return network.eval()

    def _by_file(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, all of one file after another."""
        groups: dict[TensorFile, list[str]] = {}
        for name in names:
            groups.setdefault(self._entry(name).file, []).append(name)
        for file, members in groups.items():
            for name in members:
                yield name, self._entries[name].tensor()
            file.release()


def _model_entries(
    folder: Path, base: str | os.PathLike[str] | None, film: bool
) -> dict[str, Entry]:
    """Entries of the model shards, or of the base folder's with the adapter attached."""
    located = locate_tensors(folder)
    if located:
        return _shard_entries(located)
    adapter = find_adapter(folder)
    if adapter is None:
        raise HbvlaError(f'{folder}: no model*.safetensors and no lora_adapter')
    if base is None:
        raise HbvlaError(
            f'{folder}: holds only a LoRA adapter; name the folder of its base model with --base'
        )
    located = locate_tensors(Path(base))
    if not located:
        raise HbvlaError(f'{base}: no model*.safetensors to put the adapter on')
    return apply_adapter(_shard_entries(located), adapter, film)


def _shard_entries(located: Mapping[str, TensorFile]) -> dict[str, Entry]:
    shapes = {file: file.shapes() for file in set(located.values())}
    return {name: Entry(file, name, shapes[file][name]) for name, file in located.items()}


def _side_entries(file: TensorFile, module: str) -> dict[str, Entry]:
    return {f'{module}.{key}': Entry(file, key, shape) for key, shape in file.shapes().items()}


def folder_identity(folder: Path) -> str:
    """Folder name and a digest over name, size, head and tail of the files in it.

    Its card and its training log do not count: with another word in them it is the same policy.
    """
    digest = hashlib.sha256()
    files = (path for path in folder.iterdir() if path.is_file())
    for path in sorted(path for path in files if path.suffix not in _ABOUT):
        size = path.stat().st_size
        digest.update(f'{path.name} {size}\n'.encode())
        with path.open('rb') as stream:
            digest.update(stream.read(65536))
            stream.seek(max(0, size - 65536))
            digest.update(stream.read(65536))
    return f'{folder.resolve().name}@{digest.hexdigest()[:8]}'
