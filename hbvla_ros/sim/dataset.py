# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A folder of demonstration episodes: generated in parallel, resumable, with a manifest."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import scene, seeds
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task

if TYPE_CHECKING:
    from hbvla_ros.sim.policy_demonstrations import ActorSource

MANIFEST = 'dataset.json'
# Version 2 added the task's name and the known columns to each episode; readers take both.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
CONTROL_RATE = 25.0  # Hz
_SAVE_EVERY = 20  # episodes between two writes of the manifest


@dataclass(frozen=True)
class EpisodeResult:
    """Outcome of one seed; ``frames`` is 0 when the episode was not kept.

    Of the expert's own episodes the failed ones are not kept, of a policy's all are.
    """

    seed: int
    success: bool
    frames: int

    @property
    def kept(self) -> bool:
        """Whether there is a file of it."""
        return self.frames > 0


@dataclass
class DatasetManifest:
    """What a folder holds: kept episodes (seed to labelled frames) and discarded seeds.

    ``policy`` is the identity of the checkpoint that drove, '' where the expert did. Manifests that
    were written before there was such a key are of the expert.
    """

    task: str
    cameras: list[str]
    camera_size: int
    control_rate: float
    label_every: int
    chunk: int
    auxiliary_names: list[str]
    episodes: dict[str, int] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    format_version: int = FORMAT_VERSION
    policy: str = ''

    @property
    def frames(self) -> int:
        """Labelled frames in all kept episodes."""
        return sum(self.episodes.values())

    @property
    def success_rate(self) -> float:
        """Share of the attempted seeds that were kept, 0 when none was tried."""
        tried = len(self.episodes) + len(self.failed)
        return len(self.episodes) / tried if tried else 0.0

    def add(self, result: EpisodeResult) -> None:
        """Note one outcome."""
        if result.kept:
            self.episodes[str(result.seed)] = result.frames
        elif result.seed not in self.failed:
            self.failed.append(result.seed)

    def write(self, folder: Path) -> None:
        """Write ``dataset.json``, whole or not at all."""
        temporary = folder / f'.{MANIFEST}.{os.getpid()}'
        content = dict(asdict(self), frames=self.frames, success_rate=self.success_rate)
        temporary.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        temporary.replace(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> DatasetManifest:
        """Read ``dataset.json``.

        Raises:
            HbvlaError: missing, not JSON, wrong version or wrong keys.
        """
        path = folder / MANIFEST
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
            version = content.get('format_version')
            if version not in READABLE_VERSIONS:
                known = ' and '.join(map(str, READABLE_VERSIONS))
                raise HbvlaError(
                    f'{path}: format_version {version!r}, this program reads {known}; '
                    'generate the demonstrations again'
                )
            for derived in ('frames', 'success_rate'):
                content.pop(derived, None)
            return cls(**content)
        except FileNotFoundError as error:
            raise HbvlaError(f'{path}: missing; make it with "hbvla demos --out"') from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise HbvlaError(f'{path}: cannot read: {error}') from error


def episode_path(folder: Path, seed: int) -> Path:
    """Where the episode of a seed lies."""
    return folder / f'episode_{seed}.npz'


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
        outcomes = _outcomes(todo, workers, (str(folder), camera_size, task, actors))
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


_worker: dict[str, Any] = {}
# Of Mesa (0 means none of its own), of torch and of numpy's BLAS.
_THREADS = {'LP_NUM_THREADS': '0', 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
# Folder, camera size, task and policy.
_Work = tuple[str, int, str, 'ActorSource | None']


def _start_process(folder: str, camera_size: int, task: str, actors: ActorSource | None) -> None:
    # An interrupt is for the parent alone; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _start_worker(folder, camera_size, task, actors)


def _start_worker(folder: str, camera_size: int, task: str, actors: ActorSource | None) -> None:
    from hbvla_ros.sim.simulation import AlohaSimulation

    _worker['folder'] = Path(folder)
    _worker['simulation'] = AlohaSimulation(camera_size, CONTROL_RATE, task)
    _worker['actor'] = actors() if actors else None


def _record(seed: int) -> EpisodeResult:
    from hbvla_ros.sim.demonstrations import record_episode
    from hbvla_ros.sim.policy_demonstrations import record_policy_episode

    simulation, actor = _worker['simulation'], _worker['actor']
    if actor is None:
        episode = record_episode(simulation, seed)
        if not episode.success:
            return EpisodeResult(seed, False, 0)
    else:
        episode = record_policy_episode(simulation, seed, actor)
    episode.write(episode_path(_worker['folder'], seed))
    return EpisodeResult(seed, episode.success, len(episode.chunks))


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers share the cores already; threads of their own would only get in the way."""
    before = {name: os.environ.get(name) for name in _THREADS}
    for name, count in _THREADS.items():
        os.environ.setdefault(name, count)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _outcomes(todo: list[int], workers: int, work: _Work) -> Iterator[EpisodeResult]:
    if not todo:
        return
    from hbvla_ros.sim.rendering import choose_backend

    # Before the workers start: one error, not one from each of them.
    choose_backend()
    if workers == 1:
        _start_worker(*work)
        yield from map(_record, todo)
        return
    with _single_threaded():
        context = multiprocessing.get_context('spawn')
        with context.Pool(workers, _start_process, work) as pool:
            yield from pool.imap_unordered(_record, todo)
