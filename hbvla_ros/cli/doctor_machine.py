# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern the machine itself."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from hbvla_ros.cli.doctor_rows import Row
from hbvla_ros.errors import HbvlaError
from hbvla_ros.resources import share_path

POLICY = 'aloha_sim_small'

_MEBIBYTE = 2**20
_GIBIBYTE = 2**30

# Raw camera images are about 1 MB each: a receive buffer below a few of them loses fragments.
_WANTED_SOCKET_BUFFER = 4 * _MEBIBYTE
_WANTED_SHARED_MEMORY = 64 * _MEBIBYTE


def check_interpreter() -> Row:
    """Python version and platform."""
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Row(
        'interpreter',
        'ok' if supported else 'missing',
        f'Python {platform.python_version()} at {sys.executable}',
        'ROS 2 Humble and Jazzy are built for Python 3.10 and 3.12',
        'make PYTHON=python3.12 .venv',
        required=True,
    )


def check_platform() -> Row:
    """Operating system and processor."""
    linux = sys.platform == 'linux'
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count()
    return Row(
        'platform',
        'ok' if linux else 'limited',
        f'{platform.system()} {platform.release()}, {platform.machine()}, {cores} cores',
        'the nodes and the renderers are tested on Linux',
        'use a Linux machine or container',
    )


def check_policy() -> Row:
    """The policy that comes with the package."""
    try:
        folder = share_path('models', POLICY)
        size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
        state, found = 'ok', f'{folder}, {size / 1e6:.1f} MB'
    except HbvlaError as error:
        state, found = 'missing', str(error)
    return Row(
        'shipped policy',
        state,
        found,
        '`hbvla demo` drives the simulated robot with it',
        'install the package again, or train one: hbvla demos, then hbvla train',
    )


def check_build_tools() -> Row:
    """launch_ros and colcon, which come with a ROS 2 installation."""
    launch = importlib.util.find_spec('launch_ros') is not None
    colcon = shutil.which('colcon')
    parts = [
        'launch_ros' if launch else 'no launch_ros',
        f'colcon at {colcon}' if colcon else 'no colcon',
    ]
    return Row(
        'launch, colcon',
        'ok' if launch and colcon else 'missing',
        ', '.join(parts),
        '`ros2 launch` and building in a workspace need them; the `hbvla` command does not',
        'source a ROS 2 installation: source /opt/ros/jazzy/setup.bash',
    )


def check_space() -> Row:
    """Free disk and memory."""
    disk = shutil.disk_usage(Path.cwd()).free
    memory = 0
    for line in _read('/proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            memory = int(line.split()[1]) * 1024
    enough = disk > _GIBIBYTE and memory > 2 * _GIBIBYTE
    return Row(
        'disk, memory',
        'ok' if enough else 'limited',
        f'{disk / _GIBIBYTE:.0f} GiB free here, {memory / _GIBIBYTE:.0f} GiB of memory available',
        'the demo needs 1 GiB and 2 GiB; quantizing a 7.5 B checkpoint 10 GiB and 24 GiB',
        'free some space',
    )


def check_socket_buffer() -> Row:
    """Largest receive buffer that DDS may ask the kernel for, and shared memory."""
    largest = int(_read('/proc/sys/net/core/rmem_max') or 0)
    shared = shutil.disk_usage('/dev/shm').free if Path('/dev/shm').is_dir() else 0
    enough = largest >= _WANTED_SOCKET_BUFFER and shared >= _WANTED_SHARED_MEMORY
    return Row(
        'DDS buffers',
        'ok' if enough else 'limited',
        f'net.core.rmem_max {largest} bytes, {shared // _MEBIBYTE} MiB of /dev/shm free',
        'raw camera images from another machine lose fragments in a small buffer; '
        'compressed images and one machine do without',
        f'sudo sysctl -w net.core.rmem_max={_WANTED_SOCKET_BUFFER * 8}',
    )


def _read(path: str) -> str:
    """Text of a file, empty when the system has no such file."""
    try:
        return Path(path).read_text(encoding='utf-8').strip()
    except OSError:
        return ''
