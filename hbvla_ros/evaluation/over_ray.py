# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Runs the units of an evaluation on a Ray cluster, where Ray is installed."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Sequence
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.executors import ENVIRONMENT, Done
from hbvla_ros.evaluation.plan import Outcome, Settings, Unit
from hbvla_ros.evaluation.unit_runner import UnitRunner

_CONNECT_SECONDS = 5.0


def import_ray() -> Any:
    """The package ray.

    Raises:
        HbvlaError: it is not installed.
    """
    try:
        return importlib.import_module('ray')
    except ImportError as error:
        raise HbvlaError(
            '--ray: package ray is not installed; install it with "pip install ray", or leave '
            '--ray out to use the cores of this machine'
        ) from error


def check_cluster() -> None:
    """Refuse a run that Ray would let wait for minutes.

    Raises:
        HbvlaError: ray is not installed, or nothing answers at RAY_ADDRESS.
    """
    import_ray()
    address = os.environ.get('RAY_ADDRESS', '')
    host, _, port = address.removeprefix('ray://').rpartition(':')
    if not host or not port.isdecimal():
        # None, or a word such as auto or local.
        return
    try:
        with socket.create_connection((host, int(port)), _CONNECT_SECONDS):
            return
    except OSError as error:
        raise HbvlaError(
            f'--ray: nothing answers at RAY_ADDRESS {address} ({error}); start the cluster, or '
            'unset RAY_ADDRESS to use this machine'
        ) from error


class RayWorker:
    """A unit runner somewhere in the cluster; errors come back as text.

    Args:
        settings: of the evaluation.
    """

    def __init__(self, settings: Settings) -> None:
        """Compute with one thread, as every worker does."""
        from hbvla_ros.policy import set_compute_threads

        set_compute_threads(1)
        self._runner = UnitRunner(settings)

    def run(self, unit: Unit) -> tuple[Outcome, str]:
        """Outcome and no error, or nothing and an error."""
        try:
            return self._runner.run(unit), ''
        except HbvlaError as error:
            return {}, str(error)


def run_units_over_ray(
    units: Sequence[Unit], settings: Settings, workers: int | None, done: Done
) -> None:
    """Run units on the cluster that RAY_ADDRESS names, else on one that is started here.

    Package, checkpoints and a renderer must be present on every machine of it, the folders at the
    same paths.

    Args:
        units: in the order in which they are begun.
        settings: of the evaluation.
        workers: actors, None for one on each core or GPU of the cluster.
        done: called here with each unit and its outcome, in the order of the units.

    Raises:
        HbvlaError: ray is not installed or not reachable, or what a unit raises.
    """
    if not units:
        return
    ray = import_ray()
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(
                log_to_driver=False,
                logging_level='ERROR',
                runtime_env={'env_vars': dict(ENVIRONMENT)},
            )
        _run(ray, units, settings, workers, done)
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise HbvlaError(f'--ray: {str(error).strip().splitlines()[0]}') from error
    finally:
        if started and ray.is_initialized():
            ray.shutdown()


def _run(
    ray: Any, units: Sequence[Unit], settings: Settings, workers: int | None, done: Done
) -> None:
    gpus = 0 if settings.device.startswith('cpu') else 1
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(RayWorker)
    there = int(ray.cluster_resources().get('GPU' if gpus else 'CPU', 0))
    count = min(workers or max(there, 1), len(units))
    pool = ray.util.ActorPool([actor.remote(settings) for _ in range(count)])
    outcomes = pool.map(lambda one, unit: one.run.remote(unit), list(units))
    for unit, (outcome, error) in zip(units, outcomes, strict=True):
        if error:
            raise HbvlaError(error)
        done(unit, outcome)
