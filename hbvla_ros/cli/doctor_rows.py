# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One finding of ``hbvla doctor``, and how a library is tried.

Every library is tried in a process of its own: a broken graphics driver or a mismatched binary
may abort the interpreter, and one finding must not take the others with it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PROBE_SECONDS = 120.0
STATES = ('ok', 'warning', 'fault')


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        name: what was checked.
        state: ``ok``, ``warning`` (works with a restriction, or something optional is absent) or
            ``fault`` (policies cannot be quantized or run here before it is mended).
        found: what is there, in words.
        why: what it is needed for.
        fix: what to do about it.
    """

    name: str
    state: str
    found: str
    why: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON types."""
        return asdict(self)


def probe(
    code: str, environment: Mapping[str, str] | None = None, seconds: float = _PROBE_SECONDS
) -> tuple[dict[str, Any], str]:
    """Run Python code that prints one JSON object as its last line, in a process of its own.

    Args:
        code: source text.
        environment: variables to set on top of the present ones.
        seconds: how long it may take.

    Returns:
        The object and an empty string, or an empty object and the last line of the error.
    """
    return probe_command(['-c', code], environment, seconds)


def probe_command(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    seconds: float = _PROBE_SECONDS,
) -> tuple[dict[str, Any], str]:
    """As :func:`probe`, for ``python ARGUMENTS``."""
    try:
        finished = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}, f'no answer within {seconds:.0f} s'
    lines = finished.stdout.strip().splitlines()
    if finished.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found, ''
    errors = finished.stderr.strip().splitlines()
    return {}, errors[-1] if errors else f'exit status {finished.returncode}'


def ros_is_there() -> bool:
    """Whether this interpreter finds rclpy; nothing is imported."""
    return importlib.util.find_spec('rclpy') is not None


def read_text(path: str | Path) -> str:
    """Text of a file of the system, empty when there is none."""
    try:
        return Path(path).read_text(encoding='utf-8').strip()
    except OSError:
        return ''


def available_memory() -> int:
    """Bytes of main memory that programs can still have, 0 where the system does not say."""
    for line in read_text('/proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    return 0
