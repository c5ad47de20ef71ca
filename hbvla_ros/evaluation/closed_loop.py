# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Closed-loop episodes in one process: the policy and several simulations in lock step.

No graph and no delay: each chunk starts at the instant of its observation. Episodes run in groups
of fixed membership, and the policy is called once for all of a group that still run: what comes out
is decided by policy, group and settings, and not by what ran before or beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.episode import EpisodeResult, Evaluation, Trace
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task

if TYPE_CHECKING:
    from hbvla_ros.policy import Platform, Policy
    from hbvla_ros.sim.simulation import AlohaSimulation

ROBOT = 'aloha_sim'
TASK = DEFAULT_TASK
# Rows of a chunk that are executed before the next one; what the shipped policy was tuned with.
EXECUTE = 5
CAMERA_SIZE = 128
# Episodes of a group. A policy call on eight observations takes a quarter less time for each than
# a call on one, and more than eight gain nothing.
PARALLEL = 8
Progress = Callable[[EpisodeResult], None]


def check_platform(platform: Platform) -> None:
    """Refuse a policy that was not trained for the simulated robot.

    Raises:
        HbvlaError: another robot, camera set or joint count.
    """
    from hbvla_ros.sim.scene import CAMERAS
    from hbvla_ros.sim.simulation import ACTION_SIZE

    if platform.robot != ROBOT:
        raise HbvlaError(
            f'platform {platform.name}: trained for robot {platform.robot!r}, the simulated one '
            f'is {ROBOT!r}; evaluate it on its own robot'
        )
    unknown = [camera for camera in platform.cameras if camera not in CAMERAS]
    if unknown:
        raise HbvlaError(
            f'platform {platform.name}: camera {unknown[0]!r} is not on the simulated robot; '
            f'it has {", ".join(CAMERAS)}'
        )
    if platform.action_dim != ACTION_SIZE or platform.proprio_dim not in (0, ACTION_SIZE):
        raise HbvlaError(
            f'platform {platform.name}: {platform.action_dim} actions and '
            f'{platform.proprio_dim} joint positions; the simulated robot has {ACTION_SIZE}'
        )


def step_limit(task: str, rate: float, max_seconds: float | None = None) -> int:
    """Control steps after which an episode has failed.

    Args:
        task: name of the task, which has a limit of its own.
        rate: control steps a second.
        max_seconds: simulated seconds to use instead.

    Raises:
        HbvlaError: unknown task, or less than one step.
    """
    limit = find_task(task).max_seconds
    seconds = limit if max_seconds is None else max_seconds
    if not seconds * rate >= 1:
        raise HbvlaError(f'{seconds:g} s: an episode takes at least one step, {1 / rate:g} s')
    return round(seconds * rate)


def check_execute(execute: int, platform: Platform) -> None:
    """Refuse to execute more rows than a chunk has.

    Raises:
        HbvlaError: names the range.
    """
    if not 1 <= execute <= platform.chunk:
        raise HbvlaError(f'execute {execute}: must be 1 to {platform.chunk}, the rows of a chunk')


class RunningEpisode:
    """One episode under way in one simulation.

    Args:
        simulation: is reset.
        seed: decides the episode.
        task: name of the task.

    Raises:
        HbvlaError: unknown task.
    """

    def __init__(self, simulation: AlohaSimulation, seed: int, task: str) -> None:
        """Start it."""
        simulation.reset(seed, task)
        self.simulation = simulation
        self.seed = seed
        self.task = task
        self.latencies: list[float] = []
        self._times: list[float] = []
        self._commands: list[NDArray[np.float64]] = []
        self._positions: list[NDArray[np.float64]] = []

    def observe(self, cameras: tuple[str, ...]) -> Observation:
        """What the robot sees and feels now."""
        return Observation(
            images=self.simulation.render(cameras=cameras),
            proprioception=self.simulation.joint_positions(),
            instruction=self.simulation.instruction,
            stamp=self.simulation.time,
        )

    def execute(self, actions: NDArray[np.float64], max_steps: int) -> bool:
        """Command the rows one after the other; whether the episode is over."""
        for action in actions:
            self._times.append(self.simulation.time)
            self._commands.append(np.asarray(action, dtype=np.float64))
            self._positions.append(self.simulation.joint_positions())
            self.simulation.command(action)
            self.simulation.step()
            if self.simulation.success() or len(self._times) >= max_steps:
                return True
        return False

    def result(self) -> EpisodeResult:
        """The episode so far."""
        return EpisodeResult(
            seed=self.seed,
            instruction=self.simulation.instruction,
            success=self.simulation.success(),
            stage=self.simulation.stage(),
            duration=self.simulation.time,
            chunks=len(self.latencies),
            latencies=tuple(self.latencies),
            trace=Trace(np.array(self._times), np.stack(self._commands), np.stack(self._positions)),
            task=self.task,
        )


def run_episodes(
    policy: Policy,
    simulations: Sequence[AlohaSimulation],
    seeds: Sequence[int],
    execute: int = EXECUTE,
    max_steps: int | None = None,
    task: str = TASK,
) -> Iterator[EpisodeResult]:
    """Run a group of episodes in lock step and give each as it ends.

    Args:
        policy: computes the chunks, for all episodes that still run together.
        simulations: at least one a seed.
        seeds: one an episode.
        execute: rows of each chunk that are commanded before the next observation.
        max_steps: control steps after which an episode has failed; None for the task's limit.
        task: name of the task.

    Raises:
        HbvlaError: the policy is for another robot, ``execute`` does not fit its chunks, or there
            are too few simulations.
    """
    check_platform(policy.platform)
    check_execute(execute, policy.platform)
    if len(simulations) < len(seeds):
        raise HbvlaError(f'{len(seeds)} episodes in lock step need as many simulations')
    limit = step_limit(task, 1 / policy.platform.step) if max_steps is None else max_steps
    if seeds:
        # Where a network draws noise, the group decides which.
        policy.generator.manual_seed(seeds[0])
    running = [RunningEpisode(*pair, task) for pair in zip(simulations, seeds, strict=False)]
    while running:
        observations = [one.observe(policy.platform.cameras) for one in running]
        started = time.perf_counter()
        chunks = policy.act_batch(observations)
        seconds = time.perf_counter() - started
        for one, chunk in zip(list(running), chunks, strict=True):
            one.latencies.append(seconds)
            if one.execute(chunk.actions[:execute], limit):
                running.remove(one)
                yield one.result()


def run_episode(
    policy: Policy,
    simulation: AlohaSimulation,
    seed: int,
    execute: int = EXECUTE,
    max_steps: int | None = None,
    task: str = TASK,
) -> EpisodeResult:
    """Run a single episode; arguments and errors as in :func:`run_episodes`."""
    return next(run_episodes(policy, [simulation], [seed], execute, max_steps, task))


def evaluate(
    policy: Policy,
    seeds: Sequence[int],
    parallel: int = PARALLEL,
    execute: int = EXECUTE,
    max_steps: int | None = None,
    task: str = TASK,
    progress: Progress | None = None,
) -> Evaluation:
    """Run one episode a seed in simulations of its own, in this process.

    The result is decided by policy, seeds and settings. The number of parallel simulations is
    one of them: a different batch size rounds differently, and contacts magnify that.

    Args:
        policy: computes the chunks.
        seeds: see :func:`hbvla_ros.evaluation.episode.evaluation_seeds`.
        parallel: episodes of a group, which run in lock step; at least 1.
        execute: rows of each chunk that are commanded.
        max_steps: control steps after which an episode has failed; None for the task's limit.
        task: name of the task.
        progress: called with each episode as it ends.

    Raises:
        HbvlaError: no seeds, no simulator, or a policy for another robot.
    """
    from hbvla_ros.sim.simulation import AlohaSimulation

    if not seeds or parallel < 1:
        raise HbvlaError(f'{len(seeds)} episodes, {parallel} in parallel: run at least one')
    check_platform(policy.platform)
    check_execute(execute, policy.platform)
    started = time.perf_counter()
    rate = 1.0 / policy.platform.step
    limit = step_limit(task, rate) if max_steps is None else max_steps
    count = min(parallel, len(seeds))
    simulations = [AlohaSimulation(CAMERA_SIZE, rate) for _ in range(count)]
    policy.warmup()
    results = []
    try:
        for group in grouped(seeds, parallel):
            for result in run_episodes(policy, simulations, group, execute, limit, task):
                results.append(result)
                if progress is not None:
                    progress(result)
    finally:
        for simulation in simulations:
            simulation.close()
    settings = {
        'where': 'in process',
        'execute': execute,
        'max_steps': limit,
        'trace_rate_hz': rate,
        'settle_seconds': 0.0,
        'camera_size': CAMERA_SIZE,
        'parallel': count,
    }
    order = {seed: index for index, seed in enumerate(seeds)}
    results.sort(key=lambda result: order[result.seed])
    return Evaluation(policy.checkpoint, task, results, settings, time.perf_counter() - started)


def grouped(seeds: Sequence[int], parallel: int) -> Iterator[Sequence[int]]:
    """The seeds in groups of ``parallel``, in their order; the last one may be smaller."""
    for start in range(0, len(seeds), parallel):
        yield seeds[start : start + parallel]
