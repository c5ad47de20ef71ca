# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Help must answer at once: a process of its own for each command, as a user has it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hbvla_ros.cli.main import _COMMANDS

SCRIPT = """
import json, sys, time
from hbvla_ros.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ending:
    status = ending.code
heavy = [name for name in ('torch', 'mujoco', 'rclpy', 'cv2') if name in sys.modules]
print(json.dumps([status, heavy, time.process_time()]), file=sys.stderr)
"""


@pytest.mark.parametrize('command', [None, *_COMMANDS])
def test_help_is_quick(command: str | None) -> None:
    arguments = ['--help'] if command is None else [command, '--help']
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    status, heavy, seconds = json.loads(done.stderr)
    assert (status, heavy) == (0, [])
    assert seconds < 1.0
    assert done.stdout.startswith('usage: ')
