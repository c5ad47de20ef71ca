# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a checkpoint folder are: honest bits per weight and a size table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.headers import TensorEntry, read_header, read_state_dict
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.packed.reader import PackedFolder

_NO_COMPONENT = 'other files'
COMPONENTS = ('vision towers', 'projector', 'language model', 'heads', 'embeddings', _NO_COMPONENT)
_PREFIXES = {
    'vision_backbone.': 'vision towers',
    'projector.': 'projector',
    'language_model.model.embed_tokens.': 'embeddings',
    'language_model.lm_head.': 'embeddings',
    'language_model.': 'language model',
    'action_head.': 'heads',
    'proprio_projector.': 'heads',
    'noisy_action_projector.': 'heads',
}
_SIDE_FILES = {
    'action_head': 'heads',
    'proprio_projector': 'heads',
    'noisy_action_projector': 'heads',
    'vision_backbone': 'vision towers',
}
# What quantization replaces lies in these.
_QUANTIZABLE = ('vision towers', 'language model')


@dataclass
class SizeRow:
    """One line of the size table.

    Attributes:
        name: component or layer type.
        parameters: parameters of the full-precision network it stands for.
        bytes: bytes of its tensors; of 'other files', also all that is no tensor.
        quantized_weights: weights of its quantized layers.
        quantized_bytes: stored bytes of its quantized layers.
        nominal_bits: sum over its quantized weights of nominal bits.
    """

    name: str
    parameters: int = 0
    bytes: int = 0
    quantized_weights: int = 0
    quantized_bytes: int = 0
    nominal_bits: float = 0.0

    @property
    def stored_bits_per_weight(self) -> float | None:
        """Stored bits per quantized weight, None where nothing is quantized."""
        weights = self.quantized_weights
        return 8 * self.quantized_bytes / weights if weights else None

    @property
    def nominal_bits_per_weight(self) -> float | None:
        """Nominal bits per quantized weight, None where nothing is quantized."""
        return self.nominal_bits / self.quantized_weights if self.quantized_weights else None

    @property
    def bits_per_parameter(self) -> float | None:
        """Bits of its tensors per parameter, quantized or not; None where it is not all tensors."""
        if self.name == _NO_COMPONENT or not self.parameters:
            return None
        return 8 * self.bytes / self.parameters

    def to_json(self) -> dict[str, Any]:
        """Plain numbers for the JSON output."""
        return {
            'name': self.name,
            'parameters': self.parameters,
            'bytes': self.bytes,
            'bits_per_parameter': self.bits_per_parameter,
            'quantized_weights': self.quantized_weights,
            'stored_bits_per_weight': self.stored_bits_per_weight,
            'nominal_bits_per_weight': self.nominal_bits_per_weight,
        }


@dataclass
class SizeReport:
    """Sizes of one folder.

    Attributes:
        folder: its path.
        method: quantization method, 'none' for full precision.
        stored_bits_per_weight: over the quantized layers; for full precision over all tensors of
            vision towers and language model, as they are stored.
        nominal_bits_per_weight: sign planes only; for full precision the same as stored.
        total_bytes: every byte of every file in the folder.
        source_bytes: bytes of the full-precision folder it was made from, and of its base's.
        components: rows that add up to ``total_bytes``.
        layer_types: rows of the quantized layers by type, such as 'q_proj'.
        details: further entries of the JSON output.
    """

    folder: str
    method: str
    stored_bits_per_weight: float
    nominal_bits_per_weight: float
    total_bytes: int
    source_bytes: int
    components: list[SizeRow]
    layer_types: list[SizeRow] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of ``hbvla info --json``."""
        return {
            'folder': self.folder,
            'method': self.method,
            'stored_bits_per_weight': self.stored_bits_per_weight,
            'nominal_bits_per_weight': self.nominal_bits_per_weight,
            'total_bytes': self.total_bytes,
            'source_bytes': self.source_bytes,
            **self.details,
            'components': [row.to_json() for row in self.components],
            'layer_types': [row.to_json() for row in self.layer_types],
        }


def stored_bits_per_weight(layers: Iterable[QuantizedLayer | LayerEntry]) -> float:
    """8 x all bytes needed to rebuild the quantized layers / their weights."""
    bits, weights = 0, 0
    for layer in layers:
        bits += 8 * (layer.bytes if isinstance(layer, LayerEntry) else layer.stored_bytes())
        weights += layer.rows * layer.columns
    return bits / weights


def nominal_bits_per_weight(layers: Iterable[QuantizedLayer | LayerEntry]) -> float:
    """Sign planes only, averaged over the weights."""
    bits, weights = 0.0, 0
    for layer in layers:
        bits += layer.nominal_bits * layer.rows * layer.columns
        weights += layer.rows * layer.columns
    return bits / weights


def component_of(name: str) -> str:
    """The component a tensor or layer belongs to, by its name."""
    for prefix, component in _PREFIXES.items():
        if name.startswith(prefix):
            return component
    return _NO_COMPONENT


def folder_files(folder: Path) -> list[Path]:
    """All regular files below a folder, sorted."""
    return sorted(path for path in folder.rglob('*') if path.is_file())


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder_files(folder))


def packed_report(folder: PackedFolder) -> SizeReport:
    """Sizes of a deployed folder, from the tensors that are in the file, not from the manifest."""
    rows = {name: SizeRow(name) for name in COMPONENTS}
    types: dict[str, SizeRow] = {}
    entries = folder.entries()
    for name in folder.names():
        _add_tensor(rows[component_of(name)], entries[name])
    for name, layer in folder.manifest.layers.items():
        size = sum(entry.size for entry in folder.layer_parts(name).values())
        kind = name.rpartition('.')[2]
        for row in (rows[component_of(name)], types.setdefault(kind, SizeRow(kind))):
            _add_layer(row, layer, size)
    total = folder_bytes(folder.folder)
    rows[_NO_COMPONENT].bytes += total - sum(entry.size for entry in entries.values())
    manifest = folder.manifest
    return SizeReport(
        folder=str(folder.folder),
        method=manifest.method,
        stored_bits_per_weight=_total_bits(types.values()),
        nominal_bits_per_weight=nominal_bits_per_weight(manifest.layers.values()),
        total_bytes=total,
        source_bytes=int(manifest.source['bytes']),
        components=list(rows.values()),
        layer_types=list(types.values()),
        details={
            'format_version': manifest.format_version,
            'bits_asked': manifest.bits_asked,
            'seed': manifest.seed,
            'options': manifest.options,
            'calibration': manifest.calibration,
            'refinement': manifest.refinement,
            'source': manifest.source['name'],
        },
    )


def full_precision_report(folder: Path) -> SizeReport:
    """Sizes of a full-precision Hugging Face folder, from the tensors in its files.

    Raises:
        HbvlaError: there are no weights in the folder, or a file is damaged.
    """
    if not folder.is_dir():
        raise HbvlaError(f'{folder}: no such folder')
    rows = {name: SizeRow(name) for name in COMPONENTS}
    shards = sorted(folder.glob('model*.safetensors'))
    if not shards:
        raise HbvlaError(f'{folder}: neither hbvla.json nor model*.safetensors in it')
    total, tensors = folder_bytes(folder), 0
    for shard in shards:
        for name, entry in read_header(shard).items():
            _add_tensor(rows[component_of(name)], entry)
            tensors += entry.size
    for path in sorted(folder.glob('*_checkpoint.pt')):
        component = _SIDE_FILES.get(path.name.partition('--')[0])
        if component:
            for entry in read_state_dict(path).values():
                _add_tensor(rows[component], entry)
                tensors += entry.size
    rows[_NO_COMPONENT].bytes += total - tensors
    bits = _stored_bits([rows[name] for name in _QUANTIZABLE])
    return SizeReport(str(folder), 'none', bits, bits, total, total, list(rows.values()))


def _add_tensor(row: SizeRow, entry: TensorEntry) -> None:
    row.parameters += entry.elements
    row.bytes += entry.size


def _add_layer(row: SizeRow, layer: LayerEntry, size: int) -> None:
    weights = layer.rows * layer.columns
    row.parameters += weights
    row.bytes += size
    row.quantized_weights += weights
    row.quantized_bytes += size
    row.nominal_bits += weights * layer.nominal_bits


def _total_bits(rows: Iterable[SizeRow]) -> float:
    listed: list[SizeRow] = list(rows)
    weights = sum(row.quantized_weights for row in listed)
    return 8 * sum(row.quantized_bytes for row in listed) / weights


def _stored_bits(rows: Iterable[SizeRow]) -> float:
    """Bits of the tensors of some components per parameter."""
    listed = list(rows)
    parameters = sum(row.parameters for row in listed)
    return 8 * sum(row.bytes for row in listed) / parameters if parameters else 0.0
