# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla train``: behaviour cloning of the small policy on simulated demonstrations."""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser('train', help='train a small policy on demonstrations')
    parser.add_argument(
        '--data', type=Path, nargs='+', required=True, metavar='DIR',
        help='folders that hbvla demos made, of one or several tasks',
    )  # fmt: skip
    parser.add_argument(
        '--validation', type=Path, nargs='+', required=True, metavar='DIR',
        help='demonstrations of the same tasks from other seeds',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, help='checkpoint folder to write')
    parser.add_argument(
        '--from', dest='start', type=Path, metavar='CHECKPOINT',
        help='begin with the weights of this policy (default: fresh ones)',
    )  # fmt: skip
    parser.add_argument('--steps', type=int, default=6000, help='steps of the whole run')
    parser.add_argument('--until', type=int, help='stop after this many steps; go on with --resume')
    parser.add_argument('--batch', type=int, default=64, help='frames a step')
    parser.add_argument(
        '--share', type=_share, nargs='+', default=[], metavar='TASK=N',
        help='how much of a batch a task gets, relative to the others (default: 1 for each)',
    )  # fmt: skip
    parser.add_argument('--rate', type=float, default=8e-4, help='learning rate')
    parser.add_argument(
        '--optimizer', choices=('muon', 'adamw'), default='muon',
        help='for the matrices inside the network (default: %(default)s); the rest has adamw',
    )  # fmt: skip
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of weights, batches, augmentation'
    )
    parser.add_argument('--threads', type=int, default=1, help='cores to use')
    parser.add_argument('--layers', type=int, default=4, help='language-model layers')
    parser.add_argument('--hidden', type=int, default=256, help='language-model width')
    parser.add_argument('--no-compile', action='store_true', help='leave out torch.compile')
    parser.add_argument('--resume', action='store_true', help='go on from the resume file')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train and write the checkpoint folder."""
    from hbvla_ros.errors import HbvlaError
    from hbvla_ros.training.options import NetworkSize, TrainingOptions
    from hbvla_ros.training.run import train_policy

    until = options.steps if options.until is None else options.until
    for name, value in (('steps', options.steps), ('batch', options.batch), ('until', until)):
        if value < 1:
            raise HbvlaError(f'--{name} {value}: at least 1 is needed')
    if options.resume and options.start is not None:
        raise HbvlaError('--from: a resumed run has its weights; leave out --from or --resume')
    if options.seed < 0:
        raise HbvlaError(f'--seed {options.seed}: must not be negative')
    size = NetworkSize(
        layers=options.layers, hidden=options.hidden, intermediate=_intermediate(options.hidden)
    )
    training = TrainingOptions(
        steps=options.steps,
        batch=options.batch,
        optimizer=options.optimizer,
        learning_rate=options.rate,
        shares=dict(options.share),
        seed=options.seed,
        threads=options.threads,
        compile=not options.no_compile,
    )
    began = time.monotonic()

    def progress(step: int, steps: int, numbers: dict[str, float]) -> None:
        shown = '  '.join(f'{name} {value:.4g}' for name, value in numbers.items())
        left = (steps - step) * numbers['seconds_a_step'] / 60
        print(f'step {step}/{steps}  {shown}  {left:.0f} min left', flush=True)

    summary = train_policy(
        options.data, options.validation, options.out, size, training, progress,
        resume=options.resume, until=until, start=options.start,
    )  # fmt: skip
    if len(summary['tasks']) > 1:
        for name, task in summary['tasks'].items():
            print(
                f'{name}: {task["episodes"]} episodes, {task["frames"]} frames, '
                f'held-out action L1 {task["validation_action_l1"]:.4f}'
            )
    minutes = (time.monotonic() - began) / 60
    print(
        f'{options.out}: {summary["parameters"]:,} parameters, {summary["steps"]} steps, '
        f'held-out action L1 {summary["validation_action_l1"]:.4f}, {minutes:.0f} min'
    )
    return 0


def _intermediate(hidden: int) -> int:
    """Width of the gated MLP: 8/3 of the hidden width, up to a multiple of 16."""
    return -(-hidden * 8 // 3 // 16) * 16


def _share(text: str) -> tuple[str, float]:
    """Task and share of ``TASK=N``."""
    name, _, number = text.partition('=')
    try:
        return name, float(number)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text}: must be TASK=N, such as stack=2') from error
