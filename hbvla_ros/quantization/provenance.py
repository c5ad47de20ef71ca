# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a deployed folder says of its origin, and what it takes over unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbvla_ros.packed.accounting import folder_files
from hbvla_ros.packed.manifest import FileEntry
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.probe_options import ProbeOptions

_COPIED_FILES = (
    'config.json',
    'preprocessor_config.json',
    'dataset_statistics.json',
    'generation_config.json',
    'tokenizer.json',
    'tokenizer.model',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'added_tokens.json',
)


def copied_files(folders: Sequence[Path]) -> list[Path]:
    """The small files that a deployed folder needs as well, each from the first that has it.

    Args:
        folders: the full-precision folder, then its base model's if there is one.
    """
    places = [[folder / name for folder in folders] for name in _COPIED_FILES]
    found = [[path for path in paths if path.is_file()] for paths in places]
    return [paths[0] for paths in found if paths]


def describe_calibration(
    calibration: CalibrationSet | None, probe: ProbeOptions
) -> dict[str, Any] | None:
    """The calibration and how its tokens are weighted, as they stand in the manifest."""
    if calibration is None:
        return None
    options = dataclasses.asdict(probe)
    return {**calibration.description, 'probe': options.pop('kind'), 'probe_options': options}


def describe_source(folders: Sequence[Path]) -> dict[str, Any]:
    """Name, bytes and digests of what was quantized, files in subfolders included.

    Args:
        folders: the full-precision folder, then its base model's if there is one.

    Returns:
        ``name``, ``bytes`` and ``files`` of the folder; with a base also ``base``, the same of
        that one, whose bytes are then part of ``bytes`` as well.
    """
    described = [_describe_folder(folder) for folder in folders]
    source = described[0]
    for base in described[1:]:
        source = {**source, 'bytes': source['bytes'] + base['bytes'], 'base': base}
    return source


def _describe_folder(folder: Path) -> dict[str, Any]:
    files = {p.relative_to(folder).as_posix(): FileEntry.of(p) for p in folder_files(folder)}
    return {
        'name': folder.resolve().name,
        'bytes': sum(entry.size for entry in files.values()),
        'files': {name: dataclasses.asdict(entry) for name, entry in files.items()},
    }
