# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How often the scripted experts succeed, without images and labels."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.tasks.registry import find_task

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

# Of this process: building a scene takes longer than an episode.
_kept: dict[str, AlohaSimulation] = {}


@dataclass(frozen=True)
class ExpertOutcome:
    """One episode of the expert: furthest stage, and simulated seconds to its end."""

    seed: int
    success: bool
    stage: int
    seconds: float


def measure_expert(
    task: str, seeds: Sequence[int], disturbed: bool = False, workers: int = 1
) -> Iterator[ExpertOutcome]:
    """Run the expert once a seed.

    Args:
        task: name of the task.
        seeds: one an episode, each decides it alone.
        disturbed: False lets the expert act undisturbed until success or the task's time limit;
            True runs what a demonstration is recorded from.
        workers: processes; 1 works in this process.

    Yields:
        the outcomes, in the order of the seeds.

    Raises:
        HbvlaError: unknown task, no seed or no worker.
    """
    find_task(task)
    if not seeds or workers < 1:
        raise HbvlaError('episodes and workers must be at least 1')
    run = partial(_run, task, disturbed)
    if workers == 1:
        yield from map(run, seeds)
        return
    context = multiprocessing.get_context('spawn')
    with context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(run, seeds)


def _run(task: str, disturbed: bool, seed: int) -> ExpertOutcome:
    from hbvla_ros.sim.demonstrations import roll_out
    from hbvla_ros.sim.experts.registry import make_expert
    from hbvla_ros.sim.simulation import AlohaSimulation

    if 'simulation' not in _kept:
        _kept['simulation'] = AlohaSimulation()
    simulation = _kept['simulation']
    simulation.reset(seed, task)
    if disturbed:
        roll_out(simulation, seed)
    else:
        expert = make_expert(simulation)
        for _ in range(round(simulation.task.max_seconds * simulation.control_rate)):
            simulation.command(expert.command())
            simulation.step()
            if simulation.success():
                break
    return ExpertOutcome(seed, simulation.success(), simulation.stage(), simulation.time)
