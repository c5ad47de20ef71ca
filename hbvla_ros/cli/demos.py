# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla demos``: generate demonstrations in simulation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hbvla_ros.sim.dataset import EpisodeResult

_FIRST_SEED = 1_000_000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        'demos', help='generate demonstrations of the simulated task',
        description='Record disturbed rollouts of the scripted expert in simulation, labelled '
        'with what the undisturbed expert would do. Run it again to go on after a stop.',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='dataset folder')
    parser.add_argument('--episodes', type=int, required=True, metavar='N', help='seeds to try')
    parser.add_argument(
        '--seed', type=int, default=_FIRST_SEED, metavar='S',
        help='first seed (default: %(default)s; validation seeds start at 2000000)',
    )  # fmt: skip
    parser.add_argument('--workers', type=int, default=1, metavar='W', help='processes')
    parser.add_argument(
        '--camera-size', type=int, default=128, metavar='PIXELS',
        help='image height and width (default: %(default)s)',
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate the episodes with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from hbvla_ros.sim.dataset import generate

    console = Console()
    columns = (
        TextColumn('episodes'), BarColumn(), MofNCompleteColumn(), Remaining(),
        TextColumn('{task.fields[kept]} kept, {task.fields[frames]} frames'),
    )  # fmt: skip
    kept = frames = 0
    with Progress(*columns, console=console) as bar:
        task = bar.add_task('demos', total=arguments.episodes, kept=0, frames=0)

        def note(result: EpisodeResult) -> None:
            nonlocal kept, frames
            kept += result.success
            frames += result.frames
            bar.update(task, advance=1, kept=kept, frames=frames)

        manifest = generate(
            arguments.out, arguments.episodes, arguments.seed, arguments.workers,
            arguments.camera_size, note,
        )  # fmt: skip
    console.print(
        f'{arguments.out}: {len(manifest.episodes)} episodes, {manifest.frames} frames, '
        f'{len(manifest.failed)} discarded ({100 * manifest.success_rate:.1f} % kept)',
        highlight=False,
    )
    return 0
