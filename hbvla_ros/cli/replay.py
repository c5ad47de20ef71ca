# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla replay``: a recorded bag against a checkpoint, offline and the same every time."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError

if TYPE_CHECKING:
    from hbvla_ros.evaluation.replay_run import ReplayRequest, ReplayResult
    from hbvla_ros.policy import Policy

_TOO_FAR = 1
_SHOWN_HOLDS = 20


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        'replay',
        help='replay a recorded bag against a checkpoint',
        description='Pass the messages of a rosbag2 bag through the code that takes live ones, '
        'compute the chunks a policy would have sent, and run them through chunk clock and safety '
        'stage. Open loop, without ROS; same bag, checkpoint and options: same digests.',
    )
    parser.add_argument('bag', type=Path, help='bag folder, .mcap or .db3 file')
    parser.add_argument(
        '--checkpoint', type=Path, required=True, metavar='FOLDER',
        help='checkpoint folder, full precision or deployed',
    )  # fmt: skip
    parser.add_argument(
        '--robot', metavar='PROFILE',
        help="robot profile, a name or a file (default: that of the checkpoint's robot)",
    )  # fmt: skip
    parser.add_argument(
        '--instruction', default='', metavar='TEXT', help='task in words until the bag tells one'
    )
    _add_policy(parser)
    _add_time(parser)
    parser.add_argument(
        '--degrade', action='append', default=[], metavar='FAULT',
        help='put a fault into the recording: KIND[:ARGUMENT][@START[-STOP]], such as '
        'drop-camera:cam_high@1.0; may be given several times; all kinds in docs/replay.md',
    )  # fmt: skip
    parser.add_argument(
        '--arms', choices=('follow', 'recorded'), default='follow',
        help='where the safety stage takes the arms to be: where they were commanded, or where '
        'the bag has them (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--temporal-ensemble', type=float, metavar='K',
        help='average overlapping chunks, the i-th oldest weighs exp(-K i), 0 all the same '
        '(default: the newest chunk alone)',
    )  # fmt: skip
    parser.add_argument(
        '--against', choices=('commands', 'poses', 'nothing'), default='commands',
        help='what chunks are compared with: recorded commands (default), measured poses, nothing',
    )  # fmt: skip
    parser.add_argument(
        '--max-error', type=float, metavar='RAD',
        help='end with status 1 if the mean open-loop error of the joints is larger',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, metavar='FILE.html', help='write a report with plots')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('the policy')
    group.add_argument('--platform', help='platform name or file, for a folder that holds none')
    group.add_argument('--base', type=Path, metavar='FOLDER', help='base model, for a LoRA adapter')
    group.add_argument(
        '--device', default='cpu',
        help='where the network runs: cpu (default) in float32, cuda or cuda:0 in bfloat16',
    )  # fmt: skip
    group.add_argument(
        '--threads', type=int, default=1, metavar='N',
        help='threads on the processor (default: 1); the last bits of chunks depend on how many',
    )  # fmt: skip


def _add_time(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('how long inferences take')
    group.add_argument(
        '--latency', default='0.1', metavar='TRACE',
        help='s; MEDIAN,P95 in s; or a .csv or .json file of latencies (default: %(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--latency-seed', type=int, default=0, metavar='S', help='of MEDIAN,P95 (default: 0)'
    )
    group.add_argument(
        '--spike', action='append', default=[], metavar='SECONDS@TIME',
        help='the first inference from TIME (s) on takes so long; inf never ends',
    )  # fmt: skip
    group.add_argument(
        '--missing', action='append', default=[], metavar='TIME',
        help='the reply of the first inference from TIME (s) on is lost',
    )  # fmt: skip
    group.add_argument(
        '--replan-fraction', type=float, default=0.5, metavar='SHARE',
        help='share of a chunk after which the next inference is due (default: %(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--inference-period', type=float, default=0.0, metavar='SECONDS',
        help='start one every so many s instead; 0 goes by the share (default)',
    )  # fmt: skip
    group.add_argument(
        '--inference-deadline', type=float, default=5.0, metavar='SECONDS',
        help='a chunk that takes longer is dropped (default: %(default)s)',
    )  # fmt: skip
    group.add_argument(
        '--hold-on-loss', action='store_true',
        help='hold as soon as a camera or an arm is lost instead of when the present chunk ends',
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Load the policy, replay the bag, print and write what happened."""
    from hbvla_ros.cli.output import check_file

    if options.out is not None:
        check_file(options.out)
    _check(options)
    request = _request(options)
    policy = _load(options)

    from hbvla_ros.evaluation.replay_run import replay_bag
    from hbvla_ros.policy import compute_threads
    from hbvla_ros.recordings.recording import Given, Needs
    from hbvla_ros.recordings.rosbag import load_profile

    platform = policy.platform
    needs = Needs(tuple(platform.cameras), platform.proprio_dim, platform.robot)
    profile = load_profile(options.bag, needs, Given(profile=options.robot), '--robot')
    with compute_threads(options.threads):
        result = replay_bag(request, policy, profile)
    result.report['settings'] |= {'device': options.device, 'threads': options.threads}
    if options.out is not None:
        _write(options.out, result)
    print(json.dumps(result.report, indent=1) if options.json else _text(result, options.out))
    return _judge(result.report, options.max_error)


def _check(options: argparse.Namespace) -> None:
    if not options.bag.exists():
        raise HbvlaError(f'{options.bag}: no such bag')
    for name, low, high in (
        ('replan_fraction', 0.0, 1.0),
        ('inference_period', 0.0, 10.0),
        ('inference_deadline', 0.05, 600.0),
        ('temporal_ensemble', 0.0, 10.0),
    ):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise HbvlaError(f'--{name.replace("_", "-")} {value:g}: must be {low:g} to {high:g}')
    if options.threads < 1:
        raise HbvlaError(f'--threads {options.threads}: must be 1 or more')
    if options.max_error is not None:
        if not options.max_error >= 0.0:
            raise HbvlaError(f'--max-error {options.max_error:g}: must not be below 0')
        if options.against == 'nothing':
            raise HbvlaError('--max-error needs something to compare with: leave out --against')


def _request(options: argparse.Namespace) -> ReplayRequest:
    from hbvla_ros.evaluation.latency_traces import parse_latency, parse_missing, parse_spike
    from hbvla_ros.evaluation.replay import ReplaySettings
    from hbvla_ros.evaluation.replay_run import ReplayRequest
    from hbvla_ros.recordings.degradations import parse_degradation

    return ReplayRequest(
        options.bag,
        parse_latency(options.latency, options.latency_seed),
        [*map(parse_spike, options.spike), *map(parse_missing, options.missing)],
        [parse_degradation(text) for text in options.degrade],
        ReplaySettings(
            options.replan_fraction, options.inference_period, options.inference_deadline,
            options.hold_on_loss, options.instruction, options.arms, options.temporal_ensemble,
        ),
        options.against,
    )  # fmt: skip


def _load(options: argparse.Namespace) -> Policy:
    from hbvla_ros.policy import Policy, dtype_for

    return Policy.load(
        options.checkpoint,
        options.platform,
        dtype=dtype_for(options.device),
        device=options.device,
        base=options.base,
    )


def _write(path: Path, result: ReplayResult) -> None:
    from hbvla_ros.evaluation.replay_report import render_replay
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.versions import versions

    command = shlex.join(['hbvla', *sys.argv[1:]])
    write_atomically(path, render_replay(result, command, versions()))


def _judge(report: dict[str, Any], largest: float | None) -> int:
    """Exit status: whether the error is what was allowed."""
    if largest is None:
        return 0
    error = report['open_loop_error']
    if error is None or error['joints_rad'] is None:
        raise HbvlaError('--max-error: no row of a chunk met a recorded command; see --json')
    return _TOO_FAR if error['joints_rad'] > largest else 0


def _text(result: ReplayResult, out: Path | None) -> str:
    """The report in a few lines."""
    report = result.report
    inferences, commands = report['inferences'], report['commands']
    error, worst = report['open_loop_error'], commands['worst_step']
    lines = [
        f'{report["bag"]["path"]}  {report["bag"]["seconds"]:.2f} s, {report["bag"]["messages"]} '
        f'messages, {report["checkpoint"]} on {report["profile"]}',
        f'inferences     {inferences["started"]}: '
        + (
            ', '.join(f'{count} {name}' for name, count in inferences['outcomes'].items()) or 'none'
        ),
        f'commands       {commands["sent"]} in {commands["ticks"]} turns, {commands["running"]} '
        f'towards a target; {commands["outside_limits"]} outside limits, '
        f'{commands["steps_above_limit"]} too fast',
    ]
    if worst is not None:
        lines.append(
            f'largest step   {100 * worst["share"]:.0f} % of the limit, {worst["joint"]} at '
            f'{worst["at_s"]:.2f} s'
        )
    changed = ', '.join(f'{count} {kind}' for kind, count in report['interventions'].items())
    lines.append(f'interventions  {changed or "none"}')
    lines += [
        f'hold           {hold["start_s"]:.2f} to {hold["end_s"]:.2f} s: {hold["reason"]}'
        for hold in report['holds'][:_SHOWN_HOLDS]
    ]
    if len(report['holds']) > _SHOWN_HOLDS:
        lines.append(f'               and {len(report["holds"]) - _SHOWN_HOLDS} more, see --json')
    if report['stop']:
        lines.append(f'stopped        {report["stop"]}')
    if error is not None:
        grippers = '' if error['grippers'] is None else f', grippers {error["grippers"]:.4f}'
        lines.append(
            f'open loop      joints {error["joints_rad"]:.4f} rad{grippers}, mean over '
            f'{error["rows_compared"]} rows against {error["against"]}'
        )
    lines += [f'{name:<14} {digest[:16]}' for name, digest in report['digests'].items()]
    return '\n'.join([*lines, *([f'report         {out}'] if out is not None else [])])
