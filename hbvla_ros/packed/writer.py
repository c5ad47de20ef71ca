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
    return manifest


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; shared and strided tensors are copied first."""
    try:
        contiguous = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(contiguous, path, metadata={'format': 'pt'})
        # The library makes files that only their owner can read.
        path.chmod(path.parent.stat().st_mode & 0o666)
    except SafetensorError as error:
        raise HbvlaError(f'{path.name}: cannot write it: {error}') from error
