# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a result was made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from hbvla_ros import __version__

_PACKAGES = ('numpy', 'torch', 'tokenizers', 'mujoco', 'gym-aloha', 'ros-rclpy', 'rclpy')


def versions() -> dict[str, str]:
    """Versions of this package, the interpreter, the libraries and the machine, name to text."""
    found = {'hbvla_ros': __version__, 'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if 'ros-rclpy' in found:
        # PyPI's wheel brings a second distribution name for the same package.
        found.pop('rclpy', None)
    if os.environ.get('ROS_DISTRO'):
        found['ros_distribution'] = os.environ['ROS_DISTRO']
    found['machine'] = f'{platform.system()} {platform.machine()}, {_processor()}'
    return found


def _processor() -> str:
    """Name of the processor and the number of cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    name = platform.processor() or 'processor'
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            for line in file:
                if line.startswith('model name'):
                    name = line.split(':', 1)[1].strip()
                    break
    except OSError:
        pass
    return f'{name}, {cores} cores'
