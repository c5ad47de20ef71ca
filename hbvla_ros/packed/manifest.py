# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla.json``: what a deployed folder is, how it was made and how it is checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer

FORMAT_VERSION = 2
MANIFEST_NAME = 'hbvla.json'
TENSORS_NAME = 'model.safetensors'


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    @staticmethod
    def of(path: Path) -> FileEntry:
        """Read the file and describe it."""
        digest = hashlib.sha256()
        size = 0
        with path.open('rb') as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
        return FileEntry(size, digest.hexdigest())


@dataclass(frozen=True)
class LayerEntry:
    """One quantized layer.

    Attributes:
        rows: outputs.
        columns: inputs.
        form: form of the layer, see ``packed/forms``.
        form_options: what the form needs besides its tensors.
        nominal_bits: bits per weight as papers print them.
        bytes: stored bytes of all its tensors.
        parts: names of its tensors.
        relative_error: ``|W - Q|^2 / |W|^2``.
        hessian_error: the same under the calibration Hessian, None without calibration.
        method_options: options of the method that differ from those in the manifest.
    """

    rows: int
    columns: int
    form: str
    form_options: dict[str, Any]
    nominal_bits: float
    bytes: int
    parts: list[str]
    relative_error: float
    hessian_error: float | None = None
    method_options: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        layer: QuantizedLayer,
        relative_error: float,
        hessian_error: float | None = None,
        method_options: dict[str, Any] | None = None,
    ) -> LayerEntry:
        """The entry of a layer."""
        return LayerEntry(
            rows=layer.rows,
            columns=layer.columns,
            form=layer.form,
            form_options=layer.options(),
            nominal_bits=layer.nominal_bits,
            bytes=layer.stored_bytes(),
            parts=list(layer.tensors()),
            relative_error=relative_error,
            hessian_error=hessian_error,
            method_options=method_options or {},
        )


@dataclass(frozen=True)
class Manifest:
    """The content of ``hbvla.json``. There is no time stamp in it: same input, same bytes.

    Attributes:
        stored_bits_per_weight: 8 x stored bytes of the quantized layers / their weights.
        nominal_bits_per_weight: sign planes only.
        bits_asked: what ``--bits`` said, None for what the method stores by itself.
        method: name of the method.
        options: options of the method.
        seed: seed of everything random.
        calibration: None, or digest, episodes, frames, tokens, probe of the calibration.
        source: name, bytes and file digests of the full-precision checkpoint.
        layers: module name to layer.
        files: file name to size and digest; all files of the folder but this one.
        tensors: tensor name to CRC-32, to name the damaged one.
        preset: preset of the method that the options started from.
        components: what was quantized, see ``--components``.
        refinement: steps and learning rate of the refinement and the relative action error before
            it; None where there was none.
        action_error: difference of the actions from full precision on held-out frames,
            None where it was not measured.
        format_version: version of the folder's format.
    """

    stored_bits_per_weight: float
    nominal_bits_per_weight: float
    bits_asked: float | None
    method: str
    options: dict[str, Any]
    seed: int
    calibration: dict[str, Any] | None
    source: dict[str, Any]
    layers: dict[str, LayerEntry]
    files: dict[str, FileEntry] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    preset: str = 'default'
    components: list[str] = field(default_factory=lambda: ['vision', 'language'])
    refinement: dict[str, Any] | None = None
    action_error: dict[str, Any] | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The text of the file: the version and the stored bits come first."""
        fields = dataclasses.asdict(self)
        version = {'format_version': fields.pop('format_version')}
        return json.dumps({**version, **fields}, indent=1) + '\n'


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a deployed folder.

    Raises:
        HbvlaError: not a deployed folder, another format version, or a damaged manifest.
    """
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise HbvlaError(f'{folder}: no such folder')
    if not path.is_file():
        raise HbvlaError(
            f'{folder}: no {MANIFEST_NAME} in it, so it is no deployed checkpoint; '
            'make one with hbvla quantize'
        )
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        version = content['format_version']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HbvlaError(f'{path}: not a readable manifest; copy the folder again') from error
    if version != FORMAT_VERSION:
        raise HbvlaError(
            f'{path}: format version {version}, this release reads {FORMAT_VERSION}; '
            'quantize the checkpoint again or install the release that wrote it'
        )
    try:
        content['layers'] = {k: _layer_entry(k, v) for k, v in content['layers'].items()}
        content['files'] = {k: FileEntry(**v) for k, v in content['files'].items()}
        return Manifest(**content)
    except (KeyError, TypeError, AttributeError) as error:
        raise HbvlaError(f'{path}: damaged manifest ({error}); copy the folder again') from error


def _layer_entry(name: str, fields: dict[str, Any]) -> LayerEntry:
    """The entry of a layer; TypeError where a value is of another type than it must be."""
    entry = LayerEntry(**fields)
    texts = [entry.form, *entry.parts]
    whole = (entry.rows, entry.columns, entry.bytes)
    numbers = (*whole, entry.nominal_bits, entry.relative_error, entry.hessian_error or 0.0)
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(type(number) is int and number > 0 for number in whole)
        or not all(isinstance(number, (int, float)) for number in numbers)
        or not isinstance(entry.form_options, dict)
    ):
        raise TypeError(f'layer {name} has values of wrong types')
    return entry
