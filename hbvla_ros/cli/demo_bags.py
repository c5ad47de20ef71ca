# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla demos --bags``: the episodes as rosbag2 bags, for the ROS path of the same data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from hbvla_ros.sim.dataset_manifest import DatasetManifest

_ROBOT = 'aloha_sim'


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this file to ``hbvla demos``."""
    parser.add_argument(
        '--bags', type=Path, metavar='DIR',
        help='write the episodes as rosbag2 bags as well, with the topics of the simulated robot; '
        'of several tasks, each gets a folder of its name in it',
    )  # fmt: skip


def write_bags_of(
    arguments: argparse.Namespace,
    task: str,
    folder: Path,
    manifest: DatasetManifest,
    bar: Progress,
) -> list[str]:
    """Write the kept episodes of a task as bags, where that is asked for.

    Args:
        arguments: of ``hbvla demos``.
        task: its name.
        folder: the task's episodes.
        manifest: of the folder.
        bar: gets a line for the bags.

    Returns:
        What to say about it, no line without ``--bags``.

    Raises:
        HbvlaError: an episode is damaged, or there is no place for the bags.
    """
    if arguments.bags is None:
        return []
    from hbvla_ros.control.profile import RobotProfile
    from hbvla_ros.recordings.demo_bags import write_bags
    from hbvla_ros.sim.dataset_manifest import episode_path

    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    kept = [seed for seed in seeds if str(seed) in manifest.episodes]
    row = bar.add_task(
        f'{task} as bags', total=len(kept), kept=len(kept),
        frames=sum(manifest.episodes[str(seed)] for seed in kept),
    )  # fmt: skip
    # Of several tasks, each has a folder of its name, among the episodes and among the bags.
    bags = arguments.bags if folder == arguments.out else arguments.bags / task
    write_bags(
        [episode_path(folder, seed) for seed in kept],
        bags,
        RobotProfile.load(_ROBOT),
        period=manifest.label_every / manifest.control_rate,
        step=1.0 / manifest.control_rate,
        progress=lambda _: bar.advance(row),
    )
    return [f'{bags}: {len(kept)} bags']
