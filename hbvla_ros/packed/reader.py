# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Reader of deployed folders: checks first, then lazy access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.packed.headers import TensorEntry, read_header, tensor_checksums
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import TENSORS_NAME, FileEntry, Manifest, read_manifest


class PackedFolder:
    """A deployed folder that passed its checks.

    Attributes:
        folder: its path.
        manifest: its manifest.
        layers: module name to quantized layer, read when asked for.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Use :meth:`open`."""
        self.folder = folder
        self.manifest = manifest
        self._path = folder / TENSORS_NAME
        self._entries = read_header(self._path)
        try:
            self._handle = safe_open(str(self._path), framework='pt')
        except SafetensorError as error:
            raise HbvlaError(f'{self._path}: damaged ({error}); copy the folder again') from error
        self.layers: Mapping[str, QuantizedLayer] = _Layers(self)
        self._check_layers()

    @staticmethod
    def open(folder: Path | str, verify: bool = True) -> PackedFolder:
        """Open a deployed folder.

        Args:
            folder: path of the folder.
            verify: also compare the digest of every file (about a second for a gigabyte).

        Raises:
            HbvlaError: no deployed folder, wrong version, or a file that is missing, truncated
                or damaged; a damaged tensor is named.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        for name, entry in manifest.files.items():
            _check_file(folder / name, entry, manifest, verify)
        if TENSORS_NAME not in manifest.files:
            raise HbvlaError(f'{folder}: the manifest lists no {TENSORS_NAME}; quantize again')
        return PackedFolder(folder, manifest)

    def names(self) -> list[str]:
        """Names of the unquantized tensors."""
        quantized = {
            f'{name}.{part}' for name, layer in self.manifest.layers.items() for part in layer.parts
        }
        return [name for name in sorted(self._entries) if name not in quantized]

    def tensor(self, name: str) -> Tensor:
        """One stored tensor as it is.

        Raises:
            HbvlaError: there is none of that name.
        """
        if name not in self._entries:
            raise HbvlaError(f'{self._path}: no tensor {name}; quantize the checkpoint again')
        return self._handle.get_tensor(name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of the full-precision network's tensors, quantized weights included."""
        shapes = {name: self._entries[name].shape for name in self.names()}
        for name, layer in self.manifest.layers.items():
            shapes[f'{name}.weight'] = (layer.rows, layer.columns)
        return shapes

    def entries(self) -> dict[str, TensorEntry]:
        """All stored tensors by name, as the file's header lists them."""
        return dict(self._entries)

    def layer_parts(self, name: str) -> dict[str, TensorEntry]:
        """The stored parts of one quantized layer."""
        parts = self.manifest.layers[name].parts
        for part in parts:
            if f'{name}.{part}' not in self._entries:
                raise HbvlaError(f'{self._path}: no tensor {name}.{part}; quantize again')
        return {part: self._entries[f'{name}.{part}'] for part in parts}

    def _check_layers(self) -> None:
        """Every layer of the manifest has its tensors, and they have the bytes it says."""
        for name, layer in self.manifest.layers.items():
            parts = self.layer_parts(name)
            if sum(entry.size for entry in parts.values()) != layer.bytes:
                raise HbvlaError(f'{self._path}: {name} has other sizes than the manifest says')


class _Layers(Mapping[str, QuantizedLayer]):
    """The quantized layers, each read from the file when it is asked for."""

    def __init__(self, folder: PackedFolder) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> QuantizedLayer:
        entry = self._folder.manifest.layers[name]
        parts = {p: self._folder.tensor(f'{name}.{p}') for p in self._folder.layer_parts(name)}
        layer = layer_from_parts(name, entry.form, entry.form_options, parts)
        if (layer.rows, layer.columns) != (entry.rows, entry.columns):
            raise HbvlaError(
                f'{name}: the manifest says {entry.rows} x {entry.columns}, its tensors '
                f'{layer.rows} x {layer.columns}; quantize the checkpoint again'
            )
        return layer

    def __iter__(self) -> Iterator[str]:
        return iter(self._folder.manifest.layers)

    def __len__(self) -> int:
        return len(self._folder.manifest.layers)


def _check_file(path: Path, entry: FileEntry, manifest: Manifest, verify: bool) -> None:
    """Compare one file with the manifest."""
    if not path.is_file():
        raise HbvlaError(f'{path}: missing; copy the folder again')
    size = path.stat().st_size
    if size != entry.size:
        what = 'truncated' if size < entry.size else 'too long'
        raise HbvlaError(f'{path}: {what}, {size} bytes of {entry.size}; copy the folder again')
    if not verify or FileEntry.of(path).sha256 == entry.sha256:
        return
    culprit = ''
    if path.name == TENSORS_NAME:
        found = tensor_checksums(path)
        wrong = [name for name, crc in manifest.tensors.items() if found.get(name) != crc]
        culprit = f' in tensor {wrong[0]}' if wrong else ' in its header'
    raise HbvlaError(f'{path}: digest differs{culprit}, the file is damaged; copy the folder again')
