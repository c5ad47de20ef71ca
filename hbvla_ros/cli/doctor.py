# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla doctor``: what is installed, what works, what is missing and how to get it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hbvla_ros import __version__
from hbvla_ros.cli import doctor_libraries, doctor_machine, doctor_ros
from hbvla_ros.cli.doctor_rows import Row

# Green, yellow and red, as terminals number them.
_COLOURS = {'ok': 32, 'limited': 33, 'absent': 33, 'missing': 31}
# In the order of the report.
_CHECKS: tuple[Callable[[], Row], ...] = (
    doctor_machine.check_interpreter,
    doctor_machine.check_platform,
    doctor_libraries.check_numpy,
    doctor_libraries.check_libraries,
    doctor_libraries.check_torch,
    doctor_libraries.check_kernels,
    doctor_ros.check_ros,
    doctor_ros.check_messages,
    doctor_ros.check_cv_bridge,
    doctor_libraries.check_simulator,
    doctor_libraries.check_renderer,
    doctor_libraries.check_video,
    doctor_machine.check_policy,
    doctor_machine.check_build_tools,
    doctor_machine.check_space,
    doctor_machine.check_socket_buffer,
)


def add_parser(subparsers: Any) -> None:
    """Add the ``doctor`` subcommand."""
    parser = subparsers.add_parser(
        'doctor',
        help='say what is installed, what is missing and how to fix it',
        description='Check this machine: interpreter, ROS 2, network libraries, simulator, limits. '
        'Exit status 0 when policies can be quantized and run over ROS 2 here, 1 otherwise.',
    )
    parser.add_argument('--json', action='store_true', help='print the rows as JSON')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one row for each check; exit status 0 when everything required works."""
    # The probes wait for their processes; two at a time suit the smallest machine.
    with ThreadPoolExecutor(max_workers=2) as pool:
        rows = list(pool.map(lambda check: check(), _CHECKS))
    works = all(row.state != 'missing' for row in rows if row.required)
    if options.json:
        report = {
            'version': __version__,
            'ok': works,
            'rows': [row.as_dict() for row in rows],
        }
        print(json.dumps(report, indent=2))
    else:
        _print_rows(rows, works)
    return 0 if works else 1


def _print_rows(rows: list[Row], works: bool) -> None:
    """One line a row; rows that are not in order also say why it matters and what to do.

    Plain prints: this command has to work where libraries are missing.
    """
    width = max(len(row.name) for row in rows)
    for row in rows:
        state = 'absent' if row.state == 'missing' and not row.required else row.state
        print(f'{_coloured(state)}{row.name:{width}}  {row.found}')
        if row.state != 'ok':
            for label, text in (('why', row.why), ('fix', row.fix)):
                print(f'{"":8}{"":{width}}  {label}: {text}')
    print()
    print(
        'Policies can be quantized and run over ROS 2 on this machine.'
        if works
        else 'Something required is missing: see the rows marked "missing".'
    )


def _coloured(state: str) -> str:
    """The state padded to a column, in colour on a terminal."""
    text = f'{state:8}'
    return f'\033[{_COLOURS[state]}m{text}\033[0m' if sys.stdout.isatty() else text
