# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla doctor``: what is installed, what works, what is missing and how to get it."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hbvla_ros import __version__
from hbvla_ros.cli import (
    doctor_libraries,
    doctor_machine,
    doctor_network,
    doctor_python,
    doctor_ros,
    doctor_torch,
)
from hbvla_ros.cli.doctor_rows import STATES, Row
from hbvla_ros.errors import HbvlaError

# Green, yellow and red, as terminals number them.
_COLOURS = dict(zip(STATES, (32, 33, 31), strict=True))
_LONGEST = 600.0
# In the order of the report.
_CHECKS: tuple[Callable[[], Row], ...] = (
    doctor_python.check_interpreter,
    doctor_machine.check_platform,
    doctor_libraries.check_numpy,
    doctor_libraries.check_libraries,
    doctor_torch.check_torch,
    doctor_torch.check_kernels,
    doctor_python.check_rclpy_build,
    doctor_ros.check_ros,
    doctor_ros.check_messages,
    doctor_ros.check_cv_bridge,
    doctor_libraries.check_simulator,
    doctor_libraries.check_renderer,
    doctor_libraries.check_video,
    doctor_machine.check_policy,
    doctor_machine.check_build_tools,
    doctor_machine.check_space,
    doctor_network.check_socket_buffers,
    doctor_network.check_shared_memory,
)


def add_parser(subparsers: Any) -> None:
    """Add the ``doctor`` subcommand."""
    parser = subparsers.add_parser(
        'doctor',
        help='say what is installed, what is missing and how to fix it',
        description='Check this machine: interpreter, ROS 2, torch and GPU, libraries, simulator, '
        'kernel buffers; with --checkpoint whether a policy fits into memory, with --robot what '
        'is on the ROS 2 graph. One finding a line: ok, warning or fault, with the fix. Exit '
        'status 0 without faults, 1 with faults, 2 for bad input.',
    )
    parser.add_argument('--json', action='store_true', help='print the findings as JSON')
    parser.add_argument(
        '--checkpoint',
        type=Path,
        metavar='FOLDER',
        help='compare its need of memory with what is free',
    )
    parser.add_argument(
        '--platform', help='platform name or .json, for a checkpoint that does not say its own'
    )
    parser.add_argument(
        '--robot',
        metavar='NAME',
        help='robot profile (name or .yaml): compare its topics, types, quality of service, rates '
        'and writers with the running ROS 2 graph',
    )
    parser.add_argument(
        '--namespace', default='', help='namespace of the nodes, with --robot; default none'
    )
    parser.add_argument(
        '--seconds', type=float, default=5.0, help='how long --robot listens, s; default 5'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line for each finding; exit status 1 when one of them is a fault.

    Raises:
        HbvlaError: an unknown robot, a wrong profile or checkpoint folder, or impossible seconds.
    """
    further = _further_checks(options)
    # The probes wait for their processes; two at a time suit the smallest machine.
    with ThreadPoolExecutor(max_workers=2) as pool:
        rows = list(pool.map(lambda check: check(), _CHECKS))
    # After those: a graph that is measured beside loading libraries looks slower than it is.
    for check in further:
        rows += check()
    works = all(row.state != 'fault' for row in rows)
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


def _further_checks(options: argparse.Namespace) -> list[Callable[[], list[Row]]]:
    """The checks that were asked for; bad input is refused before anything else is looked at."""
    checks: list[Callable[[], list[Row]]] = []
    if options.checkpoint is not None:
        if not options.checkpoint.is_dir():
            raise HbvlaError(f'--checkpoint {options.checkpoint}: no such folder')
        checks.append(lambda: _memory(options))
    if options.robot is not None:
        from hbvla_ros.cli.doctor_graph import graph_rows
        from hbvla_ros.control.profile import RobotProfile

        if not 0.0 < options.seconds <= _LONGEST:
            raise HbvlaError(f'--seconds {options.seconds:g}: give more than 0 and at most 600')
        RobotProfile.load(options.robot)
        checks.append(lambda: graph_rows(options.robot, options.namespace, options.seconds))
    return checks


def _memory(options: argparse.Namespace) -> list[Row]:
    from hbvla_ros.cli.doctor_memory import memory_row

    return [memory_row(options.checkpoint, options.platform)]


def _print_rows(rows: list[Row], works: bool) -> None:
    """One line a finding; those that are not in order also say why it matters and what to do.

    Plain prints: this command has to work where libraries are missing.
    """
    width = max(len(row.name) for row in rows)
    for row in rows:
        line = f'{_coloured(row.state)}{row.name:{width}}  {row.found}'
        print(line if row.state == 'ok' else f'{line}; why: {row.why}; fix: {row.fix}')
    counts = Counter(row.state for row in rows)
    print()
    print(
        f'{counts["ok"]} ok, {counts["warning"]} warnings, {counts["fault"]} faults'
        + ('.' if works else ': mend the faults first.')
    )


def _coloured(state: str) -> str:
    """The state padded to a column, in colour on a terminal."""
    text = f'{state:9}'
    return f'\033[{_COLOURS[state]}m{text}\033[0m' if sys.stdout.isatty() else text
