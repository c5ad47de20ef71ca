# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A folder of demonstration episodes: generated in parallel, resumable, with a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import scene, seeds
from hbvla_ros.sim.dataset_manifest import (
    CONTROL_RATE,
    MANIFEST,
    DatasetManifest,
    EpisodeResult,
    episode_path,
)
from hbvla_ros.sim.dataset_workers import Work, record_episodes
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task

if TYPE_CHECKING:
    from hbvla_ros.sim.policy_demonstrations import ActorSource

_SAVE_EVERY = 20  # episodes between two writes of the manifest


def generate(
    folder: Path,
    episodes: int,
    seed: int,
    workers: int = 1,
    camera_size: int = 128,
    progress: Callable[[EpisodeResult], None] | None = None,
    task: str = DEFAULT_TASK,
    actors: ActorSource | None = None,
) -> DatasetManifest:
    """Record the episodes of ``episodes`` seeds from ``seed`` on.

    Those of the expert that fail are not kept; those of a policy are kept whatever happens, since
    the expert's labels are right in any state.

    A second call goes on where the first was stopped. Each episode depends on its seed alone, not
    on the number of workers.

    Args:
        folder: made if missing.
        episodes: number of seeds to try.
        seed: the first; all of them must be demonstration or all validation seeds.
        workers: processes; 1 works in this process.
        camera_size: image height and width, pixels.
        progress: called for each outcome, earlier ones included.
        task: name of the task; a folder holds one. All tasks use the same seed ranges.
        actors: the policy that drives, see :mod:`hbvla_ros.sim.policy_demonstrations`; None for
            disturbed episodes of the expert. A folder holds episodes of one policy or of none.

    Returns:
        The finished manifest.

    Raises:
        HbvlaError: unknown task, seeds of another purpose, a folder with other settings, of
            another task or of another policy, no renderer.
    """
    find_task(task)
    if episodes < 1 or workers < 1:
        raise HbvlaError('episodes and workers must be at least 1')
    purpose = seeds.purpose_of(seed)
    if purpose not in ('demos', 'validation'):
        raise HbvlaError(
            f'seed {seed}: reserved for {purpose}; demonstrations start from '
            f'{seeds.RANGES["demos"].start}, validation from {seeds.RANGES["validation"].start}'
        )
    wanted = range(seed, seed + episodes)
    seeds.check_purpose((wanted[0], wanted[-1]), purpose)
    manifest = _prepared(folder, camera_size, task, actors.identity if actors else '')
    todo = []
    for number in wanted:
        known = _known(folder, manifest, number)
        if known is None:
            todo.append(number)
            continue
        manifest.add(known)
        if progress:
            progress(known)
    try:
        work = Work(folder, camera_size, task, actors)
        with contextlib.closing(record_episodes(work, todo, workers)) as outcomes:
            for count, result in enumerate(outcomes, start=1):
                manifest.add(result)
                if count % _SAVE_EVERY == 0:
                    manifest.write(folder)
                if progress:
                    progress(result)
    finally:
        manifest.write(folder)
    return manifest


def _prepared(folder: Path, camera_size: int, task: str, policy: str) -> DatasetManifest:
    from hbvla_ros.sim import demonstrations

    fresh = DatasetManifest(
        task=task,
        cameras=list(scene.CAMERAS),
        camera_size=camera_size,
        control_rate=CONTROL_RATE,
        label_every=demonstrations.LABEL_EVERY,
        chunk=demonstrations.CHUNK,
        auxiliary_names=list(demonstrations.AUXILIARY_NAMES),
        policy=policy,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HbvlaError(f'{folder}: cannot make the folder: {error.strerror}') from error
    if not (folder / MANIFEST).exists():
        fresh.write(folder)
        return fresh
    found = DatasetManifest.read(folder)
    for key in (
        'format_version', 'task', 'cameras', 'camera_size', 'label_every', 'chunk',
        'auxiliary_names', 'policy',
    ):  # fmt: skip
        was, asked = getattr(found, key), getattr(fresh, key)
        if was != asked:
            names = [one if one != '' else 'the expert alone' for one in (was, asked)]
            short = '' if isinstance(was, list) else f' ({names[0]}, not {names[1]})'
            raise HbvlaError(
                f'{folder / MANIFEST}: {key} differs from what is asked{short}; '
                'choose another --out'
            )
    return found


def _known(folder: Path, manifest: DatasetManifest, seed: int) -> EpisodeResult | None:
    """The outcome of an earlier call; a file the manifest has not noted yet counts as well."""
    path = episode_path(folder, seed)
    if seed in manifest.failed:
        return EpisodeResult(seed, False, 0)
    if not path.exists():
        manifest.episodes.pop(str(seed), None)
        return None
    if str(seed) in manifest.episodes and not manifest.policy:
        return EpisodeResult(seed, True, manifest.episodes[str(seed)])
    import numpy as np

    with np.load(path, allow_pickle=False) as content:
        return EpisodeResult(seed, bool(content['success']), len(content['chunks']))
