# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a deployed folder says of its origin, and what it takes over unchanged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hbvla_ros.packed.manifest import FileEntry
from hbvla_ros.quantization.calibration import CalibrationSet

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


def copied_files(folder: Path) -> list[Path]:
    """The small files of a full-precision folder that a deployed one needs as well."""
    paths = [folder / name for name in _COPIED_FILES]
    return [path for path in paths if path.is_file()]


def describe_calibration(calibration: CalibrationSet | None, probe: str) -> dict[str, Any] | None:
    """The calibration as it stands in the manifest."""
    return None if calibration is None else {**calibration.description, 'probe': probe}


def describe_source(folder: Path) -> dict[str, Any]:
    """Name, bytes and digests of a full-precision folder; a LoRA adapter is not counted."""
    files = {p.name: FileEntry.of(p) for p in sorted(folder.iterdir()) if p.is_file()}
    return {
        'name': folder.resolve().name,
        'bytes': sum(entry.size for entry in files.values()),
        'files': {name: dataclasses.asdict(entry) for name, entry in files.items()},
    }
