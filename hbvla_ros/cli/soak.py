# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla soak``: simulated operation for long, with faults at random."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        'soak',
        help='run the nodes for long, with faults at random',
        description='Run guard, arm node and policy node with drivers and a policy that fail at '
        'random, and look at every command. Writes the result as JSON and, beside it, as '
        'Markdown. Exit status 1 if a command was outside the limits, a fault was not held in '
        'time or not recovered from, or memory grows.',
    )
    parser.add_argument(
        '--minutes', type=float, default=30.0, metavar='T',
        help="of the robot's time (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        '--time-scale', type=float, default=1.0, metavar='N',
        help="seconds of the robot's time a second (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        '--seed', type=int, default=0, metavar='S', help='of faults and pauses (default: 0)'
    )
    parser.add_argument(
        '--fault', action='append', metavar='NAME', dest='faults',
        help='only this one; may be repeated (default: all)',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.json')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Soak, write the result and say whether all is well."""
    from hbvla_ros.cli.progress import Reporter, stop_like_an_interrupt
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.soak import FAULTS, SoakOptions, soak
    from hbvla_ros.evaluation.soak_report import to_json, to_markdown

    out: Path = options.out
    if out.suffix != '.json':
        raise HbvlaError(f'--out {out}: must end in .json; the summary goes beside it as .md')
    if not out.absolute().parent.is_dir():
        raise HbvlaError(f'--out {out}: there is no folder {out.absolute().parent}; make it first')
    wanted = SoakOptions(
        options.minutes, options.time_scale, options.seed, tuple(options.faults or FAULTS)
    )
    wanted.check()
    stop_like_an_interrupt()
    with Reporter() as reporter:
        reporter.begin(f'soak of {wanted.minutes:g} minutes')
        result = soak(wanted, lambda event: _say(reporter, event))
    content = to_json(result, shlex.join(['hbvla', *sys.argv[1:]]))
    write_atomically(out, json.dumps(content, indent=1) + '\n')
    write_atomically(out.with_suffix('.md'), to_markdown(content))
    count = len(result.of('fault'))
    print(f'{count} faults, {len(result.failures)} failures: {out}, {out.with_suffix(".md")}')
    for line in result.failures:
        print(f'  {line}')
    return 1 if result.failures else 0


def _say(reporter: Any, event: dict[str, Any]) -> None:
    """An event as a line."""
    if event['event'] == 'fault':
        hold = event['hold']
        held = f', held after {hold["seconds"]:.2f} s' if hold is not None else ''
        said = ': '.join(part for part in (event['name'], event['verdict'], event['text']) if part)
        reporter.say(f'  {event["at"]:7.1f} s  {said}{held}')
    elif event['event'] == 'violation':
        reporter.say(f'  {event["at"]:7.1f} s  {event["during"]}: {event["kind"]}: {event["text"]}')
    elif event['event'] == 'unasked stop':
        reporter.say(f'  {event["at"]:7.1f} s  {event["reason"]}')
