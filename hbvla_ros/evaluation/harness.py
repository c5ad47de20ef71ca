# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Runs an evaluation: checkpoints x tasks x seeds, resumable, in whichever processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.evaluation.executors import run_units
from hbvla_ros.evaluation.over_ray import run_units_over_ray
from hbvla_ros.evaluation.plan import OVER_ROS, Outcome, Settings, Unit
from hbvla_ros.sim.tasks.registry import find_task

if TYPE_CHECKING:
    from hbvla_ros.evaluation.episode import EpisodeResult
    from hbvla_ros.evaluation.work_file import WorkFile

Done = Callable[[Unit, Outcome], None]
Status = Callable[[str], None]


@dataclass(frozen=True)
class Execution:
    """In which processes units run; nothing of it changes an outcome.

    Attributes:
        workers: processes (0 for this one) or actors; None with ``ray`` for one on each core of
            the cluster.
        ray: whether to run over Ray.
    """

    workers: int | None = 1
    ray: bool = False


def run(
    units: Sequence[Unit],
    settings: Settings,
    execution: Execution,
    work: WorkFile | None = None,
    done: Done | None = None,
    status: Status | None = None,
) -> dict[Unit, Outcome]:
    """Run what is not done yet.

    Args:
        units: of the plan.
        settings: of the evaluation.
        execution: where to run them.
        work: outcomes of an earlier run, and where new ones go.
        done: called with each unit and its outcome, those of an earlier run first.
        status: called with a few words on what happens now (over ROS 2).

    Returns:
        The outcome of every unit.

    Raises:
        HbvlaError: what a unit raises; what is done until then is in the work file.
    """
    outcomes: dict[Unit, Outcome] = {}

    def keep(unit: Unit, outcome: Outcome) -> None:
        outcomes[unit] = outcome
        if work is not None and unit.key not in work.known:
            work.add(unit, outcome)
        if done is not None:
            done(unit, outcome)

    known = {} if work is None else work.known
    for unit in units:
        if unit.key in known:
            keep(unit, known[unit.key])
    waiting = [unit for unit in units if unit not in outcomes]
    if settings.where == OVER_ROS:
        _run_over_ros([unit for unit in waiting if unit.reference is None], settings, keep, status)
        # Errors along a reference's way have nothing to do with the graph.
        waiting = [unit for unit in waiting if unit.reference is not None]
    if execution.ray:
        run_units_over_ray(waiting, settings, execution.workers, keep)
    else:
        run_units(waiting, settings, 1 if execution.workers is None else execution.workers, keep)
    return outcomes


def _run_over_ros(
    units: Sequence[Unit], settings: Settings, done: Done, status: Status | None
) -> None:
    """One graph for each checkpoint and task, one episode after the other."""
    from hbvla_ros.evaluation.over_ros import evaluate_over_ros, graph_settings

    for (candidate, task), group in groupby(units, lambda unit: (unit.candidate, unit.task)):
        by_seed = {unit.seeds[0]: unit for unit in group}
        limit = settings.max_seconds or find_task(task).max_seconds
        keeper = _Keeper(by_seed, graph_settings(limit), done)
        evaluate_over_ros(
            Path(candidate.folder),
            list(by_seed),
            platform=candidate.platform,
            task=task,
            max_seconds=limit,
            progress=keeper,
            status=status,
        )


class _Keeper:
    """Turns episodes of a graph into outcomes of their units."""

    def __init__(self, units: Mapping[int, Unit], settings: Mapping[str, Any], done: Done) -> None:
        """Units by their seed; the clock starts now."""
        self._units, self._settings, self._done = units, settings, done
        self._last = time.monotonic()

    def __call__(self, result: EpisodeResult) -> None:
        """An episode has ended."""
        seconds, self._last = time.monotonic() - self._last, time.monotonic()
        outcome = {
            'seconds': round(seconds, 3),
            'episodes': [result.record()],
            'settings': dict(self._settings),
        }
        self._done(self._units[result.seed], outcome)
