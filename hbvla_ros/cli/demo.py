# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla demo``: quantize the shipped policy, drive the simulated robot with it, report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

QUICK_EPISODES = 2
EPISODES = 10
# Camera frames that quantization is calibrated on.
QUICK_FRAMES, FRAMES = 96, 384
# Gradient steps of the refinement; they take about as long as all the rest of the quantization.
QUICK_REFINE, REFINE = 20, 120


def add_parser(subparsers: Any) -> None:
    """Add the ``demo`` subcommand."""
    parser = subparsers.add_parser(
        'demo',
        help='quantize the shipped policy and drive two simulated arms with it over ROS 2',
        description='Quantize a policy to 1 bit, run it and the full-precision one over ROS 2 on '
        'the simulated robot, and write a report with success, bits, sizes, latency and a video.',
    )
    parser.add_argument(
        '--quick', action='store_true', help=f'{QUICK_EPISODES} episodes a checkpoint only'
    )
    parser.add_argument(
        '--episodes', type=int, metavar='N', help=f'episodes a checkpoint (default {EPISODES})'
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='S', help='first evaluation seed (default 0)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('demo'), help='folder of the report (default demo)'
    )
    parser.add_argument(
        '--checkpoint', type=Path, help='full-precision folder (default: the shipped policy)'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run all stages; the report appears at the end, whole or not at all."""
    from hbvla_ros.cli.demo_stages import Demo
    from hbvla_ros.cli.output import check_writable
    from hbvla_ros.cli.progress import Reporter, stop_like_an_interrupt
    from hbvla_ros.evaluation.episode import evaluation_seeds
    from hbvla_ros.resources import share_path

    episodes = options.episodes
    if episodes is None:
        episodes = QUICK_EPISODES if options.quick else EPISODES
    checkpoint = options.checkpoint or share_path('models', 'aloha_sim_small')
    seeds = evaluation_seeds(episodes, options.seed, checkpoint)
    check_writable(options.out / 'report.html' if options.out.is_dir() else options.out)
    stop_like_an_interrupt()
    with Reporter() as reporter:
        demo = Demo(checkpoint, options.out, seeds, reporter)
        if options.quick:
            demo.quantize(QUICK_FRAMES, QUICK_REFINE)
        else:
            demo.quantize(FRAMES, REFINE)
        demo.drive()
        summary = demo.write_report(_command(options), options.quick)
    print(summary)
    return 0


def _command(options: argparse.Namespace) -> str:
    """The command line that repeats this run."""
    words = ['hbvla', 'demo']
    if options.quick:
        words.append('--quick')
    if options.episodes is not None:
        words += ['--episodes', str(options.episodes)]
    if options.checkpoint:
        words += ['--checkpoint', str(options.checkpoint)]
    return shlex.join([*words, '--seed', str(options.seed), '--out', str(options.out)])
