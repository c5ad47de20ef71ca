# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla eval``: closed-loop success of checkpoints on the simulated robot."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hbvla_ros.cli.eval_suite import add_suite_arguments
from hbvla_ros.errors import HbvlaError

_EPISODES = 20
_NOT_WITH_ROS = ('parallel', 'base', 'device', 'workers', 'ray')


def add_parser(subparsers: Any) -> None:
    """Add the ``eval`` subcommand."""
    parser = subparsers.add_parser(
        'eval',
        help='run checkpoints in closed loop and count successes',
        description='Run checkpoints, full precision or quantized, on the simulated robot: every '
        'one in every task on the same seeds. One checkpoint in one task gives one result, '
        'several give a table with totals.',
    )
    parser.add_argument(
        'checkpoints', type=Path, nargs='+', metavar='CHECKPOINT', help='checkpoint folder'
    )
    parser.add_argument('--platform', help='platform name or file, for folders that hold none')
    parser.add_argument(
        '--task',
        nargs='+',
        action='extend',
        metavar='TASK',
        dest='tasks',
        help='tasks, or all (default pick_place)',
    )
    parser.add_argument(
        '--episodes',
        type=int,
        metavar='N',
        help=f'episodes of each checkpoint in each task (default {_EPISODES})',
    )
    parser.add_argument(
        '--seed',
        type=int,
        metavar='S',
        help='first of the N seeds, counted within the range reserved for evaluation (default 0)',
    )
    parser.add_argument(
        '--max-seconds',
        type=float,
        metavar='T',
        help="simulated time limit of an episode (default: the task's own)",
    )
    add_suite_arguments(parser)
    _add_execution(parser)
    _add_comparison(parser)
    _add_output(parser)
    parser.set_defaults(run=run)


def _add_execution(parser: Any) -> None:
    group = parser.add_argument_group('where it runs')
    group.add_argument(
        '--ros',
        action='store_true',
        help='run over ROS 2: simulator, policy and arms as processes, in real time',
    )
    group.add_argument(
        '--workers',
        type=int,
        metavar='W',
        help='processes that share the episodes, which does not change the result (default: one '
        'for each core, on a GPU 1); 0 runs them in this process',
    )
    group.add_argument(
        '--ray',
        action='store_true',
        help='spread the episodes over a Ray cluster (RAY_ADDRESS, else this machine)',
    )
    group.add_argument(
        '--parallel',
        type=int,
        metavar='P',
        help='episodes that run in lock step and share each policy call (default 8)',
    )
    group.add_argument(
        '--base', type=Path, metavar='FOLDER', help='base model, for a LoRA adapter folder'
    )
    group.add_argument(
        '--device',
        help='where the network runs: cpu (default) in float32, cuda or cuda:0 in bfloat16',
    )


def _add_comparison(parser: Any) -> None:
    group = parser.add_argument_group('what it is compared with')
    group.add_argument(
        '--against',
        type=Path,
        metavar='FOLDER_OR_JSON',
        help='compare success seed by seed with this checkpoint, or with the first one of a '
        'result file',
    )
    group.add_argument(
        '--reference',
        type=Path,
        metavar='FOLDER',
        help='measure the action error along episodes that this full-precision checkpoint drives',
    )
    group.add_argument(
        '--reference-episodes',
        type=int,
        default=10,
        metavar='N',
        help='how many of the seeds it drives (default %(default)s)',
    )


def _add_output(parser: Any) -> None:
    group = parser.add_argument_group('what comes out')
    group.add_argument('--json', action='store_true', help='print the result as JSON')
    group.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='write the JSON to a file; finished episodes are kept beside it on the way',
    )
    group.add_argument(
        '--resume', action='store_true', help='go on with the finished episodes beside --out'
    )
    group.add_argument('--markdown', type=Path, metavar='FILE', help='write tables to a file')
    group.add_argument(
        '--plots',
        type=Path,
        metavar='FOLDER',
        help='draw success against stored bits, and action error over the chunk',
    )


def run(options: argparse.Namespace) -> int:
    """Run the episodes, write what is asked for and print the success rates."""
    if options.suite is not None:
        from hbvla_ros.cli.eval_suite import run_suite

        return run_suite(options)
    from hbvla_ros.cli.eval_output import print_report
    from hbvla_ros.cli.eval_prepare import prepare
    from hbvla_ros.cli.progress import stop_like_an_interrupt
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.versions import versions

    # Not in the parser: a suite has other defaults.
    options.episodes = _EPISODES if options.episodes is None else options.episodes
    options.seed = options.seed or 0
    _check_options(options)
    stop_like_an_interrupt()
    evaluated = prepare(options).run()
    report = {
        **evaluated.report,
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'versions': versions(),
    }
    content = single(report) if evaluated.is_single else report
    text = json.dumps(content, indent=2) + '\n'
    if options.out is not None:
        write_atomically(_made(options.out), text)
    if options.markdown is not None:
        from hbvla_ros.evaluation.tables import markdown_page

        write_atomically(_made(options.markdown), markdown_page(report, _command()))
    if options.plots is not None:
        from hbvla_ros.evaluation.success_plots import write_plots

        write_plots(report, options.plots)
    evaluated.finish()
    if options.json:
        print(text, end='')
    else:
        print_report(report, evaluated.is_single)
    return 0


def single(report: dict[str, Any]) -> dict[str, Any]:
    """The report of one checkpoint in one task: its result, with what goes for the whole run.

    A checkpoint that it was only compared with stands under ``reference``.
    """
    from hbvla_ros.evaluation.results import SIZES

    *others, result = report['results']
    (size,) = [row for row in report['totals'] if row['checkpoint'] == result['checkpoint']]
    extra = {key: size[key] for key in SIZES if key in size}
    rest = {key: report[key] for key in ('created', 'versions')}
    return {**result, **extra, **rest, **({'reference': others[0]} if others else {})}


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that would be passed over in silence, and outputs that have no place.

    Raises:
        HbvlaError: names the option.
    """
    from hbvla_ros.cli.output import check_file, check_writable

    if options.task_suite is not None:
        raise HbvlaError('--task-suite: only with --suite libero; leave it out')
    for name in _NOT_WITH_ROS if options.ros else ():
        if getattr(options, name) not in (None, False):
            raise HbvlaError(f'--{name}: not with --ros; leave one of the two out')
    if options.resume and options.out is None:
        raise HbvlaError('--resume: name the result file of the run that was stopped with --out')
    for name in ('parallel', 'reference_episodes'):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise HbvlaError(f'--{name.replace("_", "-")} {value}: at least 1')
    if options.workers is not None and options.workers < 0:
        raise HbvlaError(f'--workers {options.workers}: must not be negative')
    for path in (options.out, options.markdown):
        if path is not None:
            check_file(path)
    if options.plots is not None:
        if options.plots.exists() and not options.plots.is_dir():
            raise HbvlaError(f'{options.plots}: is a file; name a folder with --plots')
        check_writable(options.plots / 'success.png')


def _made(path: Path) -> Path:
    """The path, with the folders above it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _command() -> str:
    """This command line, as one would type it."""
    return shlex.join(['hbvla', *sys.argv[1:]])
