# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Closed-loop episodes in one process: the policy and several simulations in lock step.

No graph and no delay: each chunk starts at the instant of its observation. Rendering and
inference share the processor, so the policy is called once for all simulations that need a chunk.
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

if TYPE_CHECKING:
    from hbvla_ros.policy import Platform, Policy
    from hbvla_ros.sim.simulation import AlohaSimulation

ROBOT = 'aloha_sim'
TASK = 'pick_place'
# Rows of a chunk that are executed before the next one; what the shipped policy was tuned with.
EXECUTE = 5
# 16 s at 25 Hz, three times what the scripted expert takes.
MAX_STEPS = 400
CAMERA_SIZE = 128
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


class _Running:
    """One episode under way in one simulation."""

    def __init__(self, simulation: AlohaSimulation, seed: int, task: str) -> None:
        simulation.reset(seed, task)
        self.simulation = simulation
        self.seed = seed
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
        )


def run_episodes(
    policy: Policy,
    simulations: Sequence[AlohaSimulation],
    seeds: Sequence[int],
    execute: int = EXECUTE,
    max_steps: int = MAX_STEPS,
    task: str = TASK,
) -> Iterator[EpisodeResult]:
    """Run one episode a seed and give each as it ends.

    Args:
        policy: computes the chunks.
        simulations: how many run side by side; a free one takes the next seed.
        seeds: one an episode.
        execute: rows of each chunk that are commanded before the next observation.
        max_steps: control steps after which an episode has failed.
        task: name of the task.

    Raises:
        HbvlaError: the policy is for another robot, or ``execute`` does not fit its chunks.
    """
    check_platform(policy.platform)
    if not 1 <= execute <= policy.platform.chunk:
        raise HbvlaError(
            f'execute {execute}: must be 1 to {policy.platform.chunk}, the rows of a chunk'
        )
    waiting = list(seeds)
    running: list[_Running] = []
    free = list(simulations)
    while waiting or running:
        while waiting and free:
            running.append(_Running(free.pop(0), waiting.pop(0), task))
        observations = [one.observe(policy.platform.cameras) for one in running]
        started = time.perf_counter()
        chunks = policy.act_batch(observations)
        seconds = time.perf_counter() - started
        for one, chunk in zip(list(running), chunks, strict=True):
            one.latencies.append(seconds)
            if one.execute(chunk.actions[:execute], max_steps):
                running.remove(one)
                free.append(one.simulation)
                yield one.result()


def run_episode(
    policy: Policy,
    simulation: AlohaSimulation,
    seed: int,
    execute: int = EXECUTE,
    max_steps: int = MAX_STEPS,
    task: str = TASK,
) -> EpisodeResult:
    """Run a single episode; arguments and errors as in :func:`run_episodes`."""
    return next(run_episodes(policy, [simulation], [seed], execute, max_steps, task))


def evaluate(
    policy: Policy,
    seeds: Sequence[int],
    parallel: int = 8,
    execute: int = EXECUTE,
    max_steps: int = MAX_STEPS,
    task: str = TASK,
    progress: Progress | None = None,
) -> Evaluation:
    """Run one episode a seed in simulations of its own.

    The result is decided by policy, seeds and settings. The number of parallel simulations is
    one of them: a different batch size rounds differently, and contacts magnify that.

    Args:
        policy: computes the chunks.
        seeds: see :func:`hbvla_ros.evaluation.episode.evaluation_seeds`.
        parallel: simulations side by side, at least 1.
        execute: rows of each chunk that are commanded.
        max_steps: control steps after which an episode has failed.
        task: name of the task.
        progress: called with each episode as it ends.

    Raises:
        HbvlaError: no seeds, no simulator, or a policy for another robot.
    """
    from hbvla_ros.sim.simulation import AlohaSimulation

    if not seeds or parallel < 1:
        raise HbvlaError(f'{len(seeds)} episodes, {parallel} in parallel: run at least one')
    check_platform(policy.platform)
    started = time.perf_counter()
    rate = 1.0 / policy.platform.step
    count = min(parallel, len(seeds))
    simulations = [AlohaSimulation(CAMERA_SIZE, rate) for _ in range(count)]
    policy.warmup()
    results = []
    try:
        for result in run_episodes(policy, simulations, seeds, execute, max_steps, task):
            results.append(result)
            if progress is not None:
                progress(result)
    finally:
        for simulation in simulations:
            simulation.close()
    settings = {
        'where': 'in process',
        'execute': execute,
        'max_steps': max_steps,
        'trace_rate_hz': rate,
        'settle_seconds': 0.0,
        'camera_size': CAMERA_SIZE,
        'parallel': count,
    }
    order = {seed: index for index, seed in enumerate(seeds)}
    results.sort(key=lambda result: order[result.seed])
    return Evaluation(policy.checkpoint, task, results, settings, time.perf_counter() - started)
