# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla demos``: generate demonstrations in simulation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hbvla_ros.cli.demo_bags import add_bag_arguments, write_bags_of

if TYPE_CHECKING:
    from rich.progress import Progress

    from hbvla_ros.evaluation.policy_actor import PolicyActors
    from hbvla_ros.sim.dataset_manifest import DatasetManifest, EpisodeResult

_FIRST_SEED = 1_000_000


_EVERY = 'all'


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        'demos', help='generate demonstrations of simulated tasks',
        description='Record disturbed rollouts of the scripted expert in simulation, labelled '
        'with what the undisturbed expert would do. Run it again to go on after a stop.',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, metavar='DIR',
        help='dataset folder; of several tasks, each gets a folder of its name in it',
    )  # fmt: skip
    parser.add_argument(
        '--task', nargs='+', default=['pick_place'], metavar='NAME',
        help=f'tasks, or {_EVERY} (default: pick_place)',
    )  # fmt: skip
    parser.add_argument(
        '--episodes', type=int, required=True, metavar='N', help='seeds to try, of each task'
    )
    parser.add_argument(
        '--seed', type=int, default=_FIRST_SEED, metavar='S',
        help='first seed (default: %(default)s; validation seeds start at 2000000)',
    )  # fmt: skip
    parser.add_argument('--workers', type=int, default=1, metavar='W', help='processes')
    parser.add_argument(
        '--camera-size', type=int, default=128, metavar='PIXELS',
        help='image height and width (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--policy', type=Path, metavar='CHECKPOINT',
        help='let this checkpoint drive, alone or in turn with the expert, which labels its '
        'states; every episode is kept',
    )  # fmt: skip
    parser.add_argument(
        '--measure', action='store_true',
        help='record nothing: say how often the expert succeeds, undisturbed and disturbed',
    )  # fmt: skip
    add_bag_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate the episodes of each task with a progress bar, or measure the experts."""
    from hbvla_ros.errors import HbvlaError

    if arguments.measure:
        return _measure(arguments)
    if arguments.out is None:
        raise HbvlaError('--out is missing: name the folder for the demonstrations, or --measure')
    return _record(arguments)


def _record(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    folders = task_folders(arguments.out, arguments.task)
    actors = _actors(arguments)
    console = Console()
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), Remaining(),
        TextColumn('{task.fields[kept]} kept, {task.fields[frames]} frames'),
    )  # fmt: skip
    lines = []
    with Progress(*columns, console=console) as bar:
        for name, folder in folders.items():
            manifest, succeeded = _generate(arguments, name, folder, actors, bar)
            made = (
                f'{folder}: {name}, {len(manifest.episodes)} episodes, {manifest.frames} frames, '
            )
            if actors is None:
                kept = 100 * manifest.success_rate
                lines.append(f'{made}{len(manifest.failed)} discarded ({kept:.1f} % kept)')
            else:
                lines.append(
                    f'{made}driven by {manifest.policy}; {succeeded} of the {arguments.episodes} '
                    'asked for succeeded, most of them with help of the expert: no success rate'
                )
            lines += write_bags_of(arguments, name, folder, manifest, bar)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _actors(arguments: argparse.Namespace) -> PolicyActors | None:
    """The policy that drives; what is wrong with it shows here, before any worker starts."""
    if arguments.policy is None:
        return None
    from hbvla_ros.evaluation.policy_actor import PolicyActors
    from hbvla_ros.sim.dataset_manifest import CONTROL_RATE

    return PolicyActors.of(arguments.policy, CONTROL_RATE)


def task_folders(out: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the demonstrations of each task go: ``out`` for one task, else a folder in it.

    Args:
        out: the folder asked for.
        names: tasks, each once; ``'all'`` alone stands for every task there is.

    Raises:
        HbvlaError: an unknown task, or one named twice.
    """
    from hbvla_ros.errors import HbvlaError
    from hbvla_ros.sim.tasks.registry import find_task, task_names

    if list(names) == [_EVERY]:
        return {name: out / name for name in task_names()}
    for name in names:
        find_task(name)
        if names.count(name) > 1:
            raise HbvlaError(f'--task {name}: named twice; name each task once')
    return {name: out if len(names) == 1 else out / name for name in names}


def _generate(
    arguments: argparse.Namespace,
    name: str,
    folder: Path,
    actors: PolicyActors | None,
    bar: Progress,
) -> tuple[DatasetManifest, int]:
    """The demonstrations of one task, and how many of the episodes asked for succeeded."""
    from hbvla_ros.sim.dataset import generate

    kept = frames = succeeded = 0
    row = bar.add_task(name, total=arguments.episodes, kept=0, frames=0)

    def note(result: EpisodeResult) -> None:
        nonlocal kept, frames, succeeded
        succeeded += result.success
        kept += result.kept
        frames += result.frames
        bar.update(row, advance=1, kept=kept, frames=frames)

    manifest = generate(
        folder, arguments.episodes, arguments.seed, arguments.workers, arguments.camera_size,
        note, name, actors,
    )  # fmt: skip
    return manifest, succeeded


def _measure(arguments: argparse.Namespace) -> int:
    """Success of the experts with Wilson's interval, one line a task and way of running."""
    from rich.console import Console
    from rich.progress import track

    from hbvla_ros.errors import HbvlaError
    from hbvla_ros.evaluation.statistics import SuccessRate
    from hbvla_ros.sim.measurement import measure_expert

    for name in ('out', 'bags', 'policy'):
        if getattr(arguments, name) is not None:
            raise HbvlaError(f'--measure records nothing: leave out --{name}')
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    console = Console(stderr=True)
    for name in task_folders(Path(), arguments.task):
        for disturbed in (False, True):
            way = 'disturbed' if disturbed else 'undisturbed'
            running = measure_expert(name, seeds, disturbed, arguments.workers)
            outcomes = list(track(running, f'{name} {way}', len(seeds), console=console))
            rate = SuccessRate.of([one.success for one in outcomes])
            seconds = sum(one.seconds for one in outcomes) / len(outcomes)
            print(f'{name}, {way}: {rate}, {seconds:.1f} s on average')
    return 0
