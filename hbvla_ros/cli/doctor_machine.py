# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The checks of ``hbvla doctor`` that concern the machine itself."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from hbvla_ros.cli.doctor_rows import Row, available_memory
from hbvla_ros.errors import HbvlaError
from hbvla_ros.resources import share_path

POLICY = 'aloha_sim_small'

_GIBIBYTE = 2**30


def check_platform() -> Row:
    """Operating system and processor."""
    linux = sys.platform == 'linux'
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count()
    return Row(
        'platform',
        'ok' if linux else 'warning',
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
        state, found = 'warning', str(error)
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
        'ok' if launch and colcon else 'warning',
        ', '.join(parts),
        '`ros2 launch` and building in a workspace need them; the `hbvla` command does not',
        'source a ROS 2 installation: source /opt/ros/jazzy/setup.bash',
    )


def check_space() -> Row:
    """Free disk and memory."""
    disk, memory = shutil.disk_usage(Path.cwd()).free, available_memory()
    enough = disk > _GIBIBYTE and memory > 2 * _GIBIBYTE
    return Row(
        'disk, memory',
        'ok' if enough else 'warning',
        f'{disk / _GIBIBYTE:.0f} GiB free here, {memory / _GIBIBYTE:.0f} GiB of memory available',
        'the demo needs 1 GiB and 2 GiB; quantizing a 7.5 B checkpoint 10 GiB and 24 GiB',
        'free some space',
    )
