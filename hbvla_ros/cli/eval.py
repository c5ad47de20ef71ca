# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla eval``: closed-loop success of a checkpoint on the simulated robot."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError

if TYPE_CHECKING:
    from hbvla_ros.evaluation.episode import Evaluation

PARALLEL = 8


def add_parser(subparsers: Any) -> None:
    """Add the ``eval`` subcommand."""
    parser = subparsers.add_parser(
        'eval',
        help='run a checkpoint in closed loop and count successes',
        description='Run a checkpoint, full precision or quantized, on the simulated robot.',
    )
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT', help='checkpoint folder')
    parser.add_argument('--platform', help='platform name or file, for folders that hold none')
    parser.add_argument('--task', default='pick_place', help='task (default %(default)s)')
    parser.add_argument(
        '--episodes', type=int, default=20, metavar='N', help='episodes (default %(default)s)'
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='S',
        help='first of the N seeds, counted within the range reserved for evaluation (default 0)',
    )
    parser.add_argument(
        '--ros',
        action='store_true',
        help='run over ROS 2: simulator, policy and arms as processes, in real time',
    )
    parser.add_argument(
        '--parallel',
        type=int,
        metavar='P',
        help=f'simulations side by side, not with --ros (default {PARALLEL})',
    )
    parser.add_argument(
        '--base', type=Path, metavar='FOLDER', help='base model, for a LoRA adapter folder; '
        'not with --ros',
    )  # fmt: skip
    parser.add_argument(
        '--device',
        help='where the network runs: cpu (default) in float32, cuda or cuda:0 in bfloat16; '
        'not with --ros',
    )
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write the JSON to a file as well')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the episodes and print the success rate with its interval."""
    from hbvla_ros.cli.output import check_file
    from hbvla_ros.cli.progress import Reporter
    from hbvla_ros.evaluation.episode import evaluation_seeds
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.versions import versions

    if options.ros:
        _refuse_with_ros(options)
    if options.out is not None:
        check_file(options.out)
    seeds = evaluation_seeds(options.episodes, options.seed, options.checkpoint)
    with Reporter() as reporter:
        reporter.begin(f'{options.checkpoint}, {options.task}', len(seeds))
        evaluation = (_over_ros if options.ros else _in_process)(options, seeds, reporter)
    result = {
        **evaluation.to_json(),
        'folder': str(options.checkpoint),
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'versions': versions(),
    }
    text = json.dumps(result, indent=2) + '\n'
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, text)
    print(text if options.json else _summary(evaluation), end='')
    return 0


def _refuse_with_ros(options: argparse.Namespace) -> None:
    """Options that the nodes of ``--ros`` do not take must not be passed over in silence."""
    for name in ('parallel', 'base', 'device'):
        if getattr(options, name) is not None:
            raise HbvlaError(f'--{name}: not with --ros; leave one of the two out')


def _in_process(options: argparse.Namespace, seeds: range, reporter: Any) -> Evaluation:
    from hbvla_ros.evaluation.closed_loop import evaluate
    from hbvla_ros.policy import Policy, dtype_for

    device = options.device or 'cpu'
    policy = Policy.load(
        options.checkpoint,
        options.platform,
        dtype=dtype_for(device),
        device=device,
        base=options.base,
    )
    parallel = PARALLEL if options.parallel is None else options.parallel
    return evaluate(policy, seeds, parallel, task=options.task, progress=reporter.episode)


def _over_ros(options: argparse.Namespace, seeds: range, reporter: Any) -> Evaluation:
    from hbvla_ros.evaluation.over_ros import evaluate_over_ros

    return evaluate_over_ros(
        options.checkpoint,
        seeds,
        platform=options.platform,
        task=options.task,
        progress=reporter.episode,
        status=reporter.status,
    )


def _summary(evaluation: Evaluation) -> str:
    """The result in a few lines."""
    lines = [f'success  {evaluation.success}']
    duration, latency = evaluation.time_to_success, evaluation.latency
    if duration is not None:
        lines.append(f'time to success  {duration.p50:.1f} s median, {duration.p95:.1f} s p95')
    if latency is not None:
        batch = evaluation.settings['parallel']
        what = (
            'images to chunk over DDS'
            if evaluation.settings['where'] == 'over ROS 2'
            else f'policy call on up to {batch} observations together'
        )
        lines.append(f'{what}  {1e3 * latency.p50:.0f} ms median, {1e3 * latency.p95:.0f} ms p95')
    lines.append(f'{len(evaluation.episodes)} episodes in {evaluation.wall_seconds:.0f} s')
    return '\n'.join(lines) + '\n'
