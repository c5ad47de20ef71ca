# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern the interpreter, and whether rclpy fits it."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from pathlib import Path

from hbvla_ros.cli.doctor_rows import Row

_EXTENSION = re.compile(r'_rclpy_pybind11\.cpython-(\d)(\d+)')
_ROS_FOLDER = Path('/opt/ros')


def check_interpreter() -> Row:
    """Python's version, where it lies, and in which kind of environment."""
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    conda = os.environ.get('CONDA_PREFIX', '')
    own_conda = Path(sys.prefix, 'conda-meta').is_dir()
    # Binaries of ROS meet conda's libraries, unless ROS comes from that very environment.
    disturbed = not _rclpy_below(Path(sys.prefix)) if own_conda else bool(conda)
    state = 'fault' if not supported else 'warning' if disturbed else 'ok'
    return Row(
        'interpreter',
        state,
        f'Python {platform.python_version()} at {sys.executable}, {_environment(conda, own_conda)}',
        'ROS 2 Humble and Jazzy are built for Python 3.10 and 3.12, and not against conda',
        'make PYTHON=python3.12 .venv'
        if not supported
        else 'conda deactivate, then use a venv of the system Python: make PYTHON=/usr/bin/python3',
    )


def _environment(conda: str, own_conda: bool) -> str:
    """In which kind of environment the interpreter runs, in words."""
    if own_conda:
        return f'conda environment {sys.prefix}'
    kind = f'venv {sys.prefix}' if sys.prefix != sys.base_prefix else 'no venv'
    return f'{kind}, with conda active at {conda}' if conda else kind


def _rclpy_below(folder: Path) -> bool:
    found = rclpy_folder()
    return found is not None and folder in found.parents


def rclpy_folder() -> Path | None:
    """Where this interpreter finds rclpy, without importing it; None if it does not."""
    spec = importlib.util.find_spec('rclpy')
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def check_rclpy_build() -> Row:
    """Whether the rclpy that is found was built for this interpreter."""
    why = "rclpy's binary part works with exactly one version of Python"
    folder, here = rclpy_folder(), (sys.version_info[0], sys.version_info[1])
    if folder is None:
        elsewhere = _installations()
        found = 'not found: there is no ROS 2 for this interpreter'
        fix = "pip install --editable '.[ros]', or source a ROS 2 installation"
        if elsewhere:
            prefix, built = elsewhere[0]
            found += f'; {prefix} is not sourced, or is for another Python ({_dotted(built)})'
            fix = f'source {prefix}/setup.bash and run it with python{_dotted(built)}'
        return Row('rclpy', 'warning', found, why, fix)
    builds = _builds(folder)
    if here in builds:
        return Row('rclpy', 'ok', f'{folder}, built for this Python {_dotted(here)}', why, 'none')
    if not builds:
        return Row('rclpy', 'fault', f'{folder}: no binary part in it', why, 'install it again')
    built = builds[0]
    return Row(
        'rclpy',
        'fault',
        f'{folder} is built for Python {_dotted(built)}, this is {_dotted(here)}',
        why,
        f'run it with python{_dotted(built)}, in a venv made by '
        f'`python{_dotted(built)} -m venv --system-site-packages`',
    )


def _builds(folder: Path) -> list[tuple[int, int]]:
    """The Python versions for which a folder of rclpy has a binary part."""
    matches = (_EXTENSION.match(path.name) for path in sorted(folder.iterdir()))
    return [(int(match[1]), int(match[2])) for match in matches if match]


def _installations() -> list[tuple[Path, tuple[int, int]]]:
    """ROS 2 installations on this machine and the Python version of each."""
    found = []
    for folder in sorted(_ROS_FOLDER.glob('*/lib/python3.*/site-packages/rclpy')):
        found += [(folder.parents[3], version) for version in _builds(folder)]
    return found


def _dotted(version: tuple[int, int]) -> str:
    return f'{version[0]}.{version[1]}'
