# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Where the package's own data files lie: robot profiles, launch files, trained policies."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

from hbvla_ros.errors import HbvlaError

_PACKAGE = 'hbvla_ros'


def _candidates() -> list[Path]:
    """Source tree, Python prefix, the user's base (``pip install --user``), ament prefixes."""
    source_tree = Path(__file__).resolve().parents[1]
    ament = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    prefixes = [sys.prefix, site.getuserbase(), *ament]
    return [source_tree] + [Path(p) / 'share' / _PACKAGE for p in prefixes if p]


def share_path(*parts: str) -> Path:
    """Path of a data file or folder of this package.

    Args:
        *parts: path below the share folder, such as ``'config', 'robots', 'aloha_sim.yaml'``.

    Raises:
        HbvlaError: no installation of the package has it.
    """
    for folder in _candidates():
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    raise HbvlaError(f'{Path(*parts)}: not found in this installation of {_PACKAGE}; reinstall it')
