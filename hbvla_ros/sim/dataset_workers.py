# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Records demonstration episodes in this process or in worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.dataset_manifest import CONTROL_RATE, EpisodeResult, episode_path

if TYPE_CHECKING:
    from hbvla_ros.sim.policy_demonstrations import Actor, ActorSource
    from hbvla_ros.sim.simulation import AlohaSimulation

# Workers share the cores already; threads of Mesa (0 means none of its own), of torch and of
# numpy's BLAS would only get in the way.
_THREADS = {'LP_NUM_THREADS': '0', 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}


@dataclass(frozen=True)
class Work:
    """What the episodes of a call have in common.

    Attributes:
        folder: where they are written.
        camera_size: image height and width, pixels.
        task: name of the task.
        actors: the policy that drives; None for disturbed episodes of the expert.
    """

    folder: Path
    camera_size: int
    task: str
    actors: ActorSource | None = None


def record_episodes(
    work: Work, seeds: Sequence[int], workers: int
) -> Generator[EpisodeResult, None, None]:
    """Record one episode a seed and write those that are kept.

    Args:
        work: what they have in common.
        seeds: one an episode.
        workers: processes; 1 works in this process.

    Yields:
        the outcomes, as the episodes end.

    Raises:
        HbvlaError: no renderer, what making the actor raises, or a worker that was killed.
    """
    if not seeds:
        return
    from hbvla_ros.sim.rendering import choose_backend

    # Before the workers start: one error, not one from each of them.
    choose_backend()
    if workers == 1:
        yield from map(_Worker(work).record, seeds)
    else:
        yield from _in_processes(work, seeds, min(workers, len(seeds)))


def _in_processes(
    work: Work, seeds: Sequence[int], workers: int
) -> Generator[EpisodeResult, None, None]:
    before = set(multiprocessing.active_children())
    with _single_threaded():
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context('spawn'), _start_process, (work,)
        )
        try:
            for future in as_completed([pool.submit(_record, seed) for seed in seeds]):
                yield future.result()
        except BrokenProcessPool as error:
            raise HbvlaError(
                'a worker process was killed, perhaps for want of memory; run it again with '
                'fewer --workers, which goes on'
            ) from error
        except BaseException:
            # Do not wait for what nobody wants any more.
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


class _Worker:
    """Records episodes, one after the other, in a simulation of its own."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._parts: tuple[AlohaSimulation, Actor | None] | None = None

    def record(self, seed: int) -> EpisodeResult:
        """Record the episode of a seed, and write it if it is kept."""
        from hbvla_ros.sim.demonstrations import record_episode
        from hbvla_ros.sim.policy_demonstrations import record_policy_episode

        if self._parts is None:
            # Not at the start of the process, whose errors nobody could tell.
            self._parts = self._made()
        simulation, actor = self._parts
        if actor is None:
            episode = record_episode(simulation, seed)
            if not episode.success:
                return EpisodeResult(seed, False, 0)
        else:
            episode = record_policy_episode(simulation, seed, actor)
        episode.write(episode_path(self._work.folder, seed))
        return EpisodeResult(seed, episode.success, len(episode.chunks))

    def _made(self) -> tuple[AlohaSimulation, Actor | None]:
        from hbvla_ros.sim.simulation import AlohaSimulation

        work = self._work
        simulation = AlohaSimulation(work.camera_size, CONTROL_RATE, work.task)
        return simulation, None if work.actors is None else work.actors()


_worker: dict[str, _Worker] = {}


def _start_process(work: Work) -> None:
    # An interrupt is for the parent alone; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker['this'] = _Worker(work)


def _end_with_parent() -> None:
    """A worker must not outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _record(seed: int) -> EpisodeResult:
    return _worker['this'].record(seed)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """What processes that start meanwhile find in their environment, where the user set none."""
    added = [name for name in _THREADS if name not in os.environ]
    os.environ.update({name: _THREADS[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
