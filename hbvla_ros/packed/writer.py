# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Writer of deployed folders."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.atomic import atomic_folder
from hbvla_ros.packed.headers import tensor_checksums
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import MANIFEST_NAME, TENSORS_NAME, FileEntry, Manifest


def layer_tensors(layers: Mapping[str, QuantizedLayer]) -> dict[str, Tensor]:
    """The stored tensors of quantized layers as ``<module name>.<part>``."""
    return {
        f'{name}.{part}': tensor
        for name, layer in layers.items()
        for part, tensor in layer.tensors().items()
    }


def write_folder(
    out: Path,
    manifest: Manifest,
    layers: Mapping[str, QuantizedLayer],
    tensors: Mapping[str, Tensor],
    copies: Sequence[Path],
    texts: Mapping[str, str] | None = None,
    force: bool = False,
    unlisted: Mapping[str, str] | None = None,
) -> Manifest:
    """Write a deployed folder: complete, or nothing at all.

    Args:
        out: folder to write.
        manifest: all but ``files`` and ``tensors``, which are filled in here.
        layers: module name to quantized layer.
        tensors: name to unquantized tensor; floating point ones are stored as bfloat16.
        copies: files copied as they are.
        texts: further files by name and content.
        force: replace a deployed folder that is already there.
        unlisted: further files that nothing depends on (a report): they are not in the manifest,
            so that the folder stays valid when they are changed or removed.

    Returns:
        The manifest as written.

    Raises:
        HbvlaError: the path is taken or the disk refuses.
    """
    stored = layer_tensors(layers)
    for name, tensor in tensors.items():
        if name in stored:
            raise ValueError(f'{name}: both a quantized and an unquantized tensor')
        dtype = torch.bfloat16 if tensor.is_floating_point() else tensor.dtype
        stored[name] = tensor.detach().to(dtype)
    with atomic_folder(out, force) as folder:
        _save(folder / TENSORS_NAME, stored)
        for path in copies:
            shutil.copyfile(path, folder / path.name)
        for name, text in (texts or {}).items():
            (folder / name).write_text(text, encoding='utf-8')
        manifest = dataclasses.replace(
            manifest,
            files={path.name: FileEntry.of(path) for path in sorted(folder.iterdir())},
            tensors=dict(sorted(tensor_checksums(folder / TENSORS_NAME).items())),
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding='utf-8')
        for name, text in (unlisted or {}).items():
            (folder / name).write_text(text, encoding='utf-8')
    return manifest


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; shared and strided tensors are copied first."""
    owners: dict[int, str] = {}
    stored = {name: _own(tensor, name, owners) for name, tensor in tensors.items()}
    try:
        save_file(stored, path, metadata={'format': 'pt'})
        # The library makes files that only their owner can read.
        path.chmod(path.parent.stat().st_mode & 0o666)
    except SafetensorError as error:
        raise HbvlaError(f'{path.name}: cannot write it: {error}') from error


def _own(tensor: Tensor, name: str, owners: dict[int, str]) -> Tensor:
    """The tensor itself where it has its memory for itself, as most do, else a copy."""
    storage = tensor.untyped_storage()
    alone = storage.nbytes() == tensor.nbytes and tensor.is_contiguous()
    if alone and owners.setdefault(storage.data_ptr(), name) == name:
        return tensor
    return tensor.contiguous().clone()
