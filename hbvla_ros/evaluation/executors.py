# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Runs the units of an evaluation on this machine: in this process or in worker processes.

Each worker owns a policy and simulations, and computes with one thread. A policy call on more
observations than a worker has episodes would be no faster for each, so nothing is gained by
sending images to a common policy; see ``docs/evaluation.md`` for the measurement.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.plan import Outcome, Settings, Unit
from hbvla_ros.evaluation.unit_runner import UnitRunner

Done = Callable[[Unit, Outcome], None]
# Workers share the cores already: threads of Mesa (0 means none of its own), of torch and of
# numpy's BLAS would only wait for each other. The last are counted when numpy is imported.
ENVIRONMENT = {'LP_NUM_THREADS': '0', 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}


def default_workers(device: str) -> int:
    """A worker for each core that this process may use; one where a GPU does the work."""
    if not device.startswith('cpu'):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return cores or 1


def run_units(units: Sequence[Unit], settings: Settings, workers: int, done: Done) -> None:
    """Run units on this machine.

    Args:
        units: in the order in which they are begun.
        settings: of the evaluation.
        workers: processes; 0 works in this process, with all its threads but torch's.
        done: called here with each unit and its outcome, in the order in which they end.

    Raises:
        HbvlaError: what a unit raises, no renderer, or a worker that was killed.
    """
    if workers < 0:
        raise HbvlaError(f'--workers {workers}: must not be negative')
    if not units:
        return
    from hbvla_ros.sim.rendering import choose_backend

    # Before the workers start: one error, not one from each of them.
    choose_backend()
    if workers == 0:
        _run_here(units, settings, done)
    else:
        _run_in_processes(units, settings, min(workers, len(units)), done)


def _run_here(units: Sequence[Unit], settings: Settings, done: Done) -> None:
    from hbvla_ros.policy import compute_threads

    runner = UnitRunner(settings)
    try:
        for unit in units:
            # Not around the loop: the caller's own computing is none of our business.
            with compute_threads(1):
                outcome = runner.run(unit)
            done(unit, outcome)
    finally:
        runner.close()


def _run_in_processes(units: Sequence[Unit], settings: Settings, workers: int, done: Done) -> None:
    before = set(multiprocessing.active_children())
    with _environment():
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context('spawn'), _start_worker, (settings,)
        )
        try:
            futures = {pool.submit(_run_unit, unit): unit for unit in units}
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BrokenProcessPool as error:
            raise HbvlaError(
                'a worker process was killed, perhaps for want of memory; use fewer --workers'
            ) from error
        except BaseException:
            # Do not wait for what nobody wants any more.
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_worker: dict[str, UnitRunner] = {}


def _start_worker(settings: Settings) -> None:
    from hbvla_ros.policy import set_compute_threads

    # An interrupt is for the parent alone; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_compute_threads(1)
    _worker['runner'] = UnitRunner(settings)


def _end_with_parent() -> None:
    """A worker must not outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run_unit(unit: Unit) -> Outcome:
    return _worker['runner'].run(unit)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What processes that start meanwhile find in their environment."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
