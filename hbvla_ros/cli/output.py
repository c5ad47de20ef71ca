# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Is there a place to write to? Asked before the work whose result goes there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hbvla_ros.errors import HbvlaError


def check_writable(path: Path) -> None:
    """Try to write where a file or folder is going to be made; nothing is left behind.

    Args:
        path: what will be written; folders above it may be missing.

    Raises:
        HbvlaError: the nearest folder that exists is no folder or takes no files.
    """
    parents = path.absolute().parents
    nearest = next(parent for parent in parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise HbvlaError(f'{path}: cannot write in {nearest}: {error.strerror}') from error


def check_file(path: Path) -> None:
    """As :func:`check_writable`, for a path that must become a file.

    Raises:
        HbvlaError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise HbvlaError(f'{path}: is a folder; name a file')
    check_writable(path)
