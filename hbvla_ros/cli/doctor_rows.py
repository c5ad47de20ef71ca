# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One row of ``hbvla doctor``, and how a library is tried.

Every library is tried in a process of its own: a broken graphics driver or a mismatched binary
may abort the interpreter, and one row must not take the others with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_PROBE_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """One checked part.

    Attributes:
        name: what was checked.
        state: ``ok``, ``limited`` (works with a restriction) or ``missing`` (absent or broken).
        found: what is there, in words.
        why: what it is needed for.
        fix: what to do about it.
        required: whether quantizing and running a policy over ROS 2 needs it.
    """

    name: str
    state: str
    found: str
    why: str
    fix: str
    required: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return asdict(self)


def probe(code: str, environment: Mapping[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """Run Python code that prints one JSON object as its last line, in a process of its own.

    Args:
        code: source text.
        environment: variables to set on top of the present ones.

    Returns:
        The object and an empty string, or an empty object and the last line of the error.
    """
    try:
        finished = subprocess.run(
            [sys.executable, '-c', code],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}, f'no answer within {_PROBE_SECONDS} s'
    lines = finished.stdout.strip().splitlines()
    if finished.returncode == 0 and lines:
        return json.loads(lines[-1]), ''
    errors = finished.stderr.strip().splitlines()
    return {}, errors[-1] if errors else f'exit status {finished.returncode}'
