# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The episode loop that all suites share.

The loop is OpenVLA-OFT's: whole chunks are executed open loop, one row a control step, and the
policy is asked again when the chunk is used up (openvla_oft spec, section 10).
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.episode import EpisodeResult, Trace
from hbvla_ros.evaluation.suites.base import Scene, Suite, SuiteTask, Values
from hbvla_ros.evaluation.suites.results import SuiteEpisode, SuiteEvaluation

if TYPE_CHECKING:
    from hbvla_ros.policy import Policy

# Numbers of the episodes of one task start at its index times this, so that an episode keeps its
# number whatever else is run, and two checkpoints can be compared episode by episode.
EPISODES_OF_A_TASK = 1000


class Store(Protocol):
    """Keeps finished episodes, so that a run that is stopped can go on."""

    def get(self, task: str, trial: int) -> Mapping[str, Any] | None:
        """Record of an episode of an earlier run, None if there is none."""

    def put(self, task: str, trial: int, record: Mapping[str, Any]) -> None:
        """Keep the record of an episode that has just ended."""


def run_trial(
    policy: Policy, scene: Scene, task: SuiteTask, trial: int, step: float
) -> SuiteEpisode:
    """Run one episode.

    An episode succeeds if it is successful when it ends; LIBERO ends it at the first success,
    SimplerEnv only when the time is up. Its duration is the time at which that success began.

    Args:
        policy: computes the chunks.
        scene: of the task.
        task: says when the time is up.
        trial: number of the episode within the task.
        step: seconds of a control step.

    Raises:
        HbvlaError: the simulator failed, or the policy refuses what it is given.
    """
    where = f'{task.name}, trial {trial}'
    with _simulator(where):
        scene.start(trial)
    instruction, rows = scene.instruction, deque[Values]()
    latencies: list[float] = []
    commands: list[Values] = []
    positions: list[Values] = []
    success, since, over = False, 0, False
    while not over and len(commands) < task.max_steps:
        with _simulator(where):
            images, proprioception = scene.observe()
        if scene.instruction != instruction:
            # What was planned for the old instruction is not what is asked for now.
            instruction = scene.instruction
            rows.clear()
        if not rows:
            stamp = len(commands) * step
            images = {camera: images[camera] for camera in policy.platform.cameras}
            started = time.perf_counter()
            chunk = policy.act(Observation(images, proprioception, instruction, stamp))
            latencies.append(time.perf_counter() - started)
            rows.extend(np.asarray(chunk.actions, dtype=np.float64))
        positions.append(proprioception)
        commands.append(rows.popleft())
        before = success
        with _simulator(where):
            success, over = scene.act(commands[-1])
        if success and not before:
            since = len(commands)
    return SuiteEpisode(
        seed=EPISODES_OF_A_TASK * task.index + trial,
        instruction=instruction,
        success=success,
        stage=int(success),
        duration=(since if success else len(commands)) * step,
        chunks=len(latencies),
        latencies=tuple(latencies),
        trace=Trace(
            step * np.arange(len(commands), dtype=np.float64),
            np.stack(commands),
            np.stack(positions),
        ),
        task=task.name,
        trial=trial,
    )


def evaluate_suite(
    policy: Policy,
    suite: Suite,
    trials: int | None = None,
    seed: int = 7,
    progress: Callable[[EpisodeResult], None] | None = None,
    store: Store | None = None,
) -> SuiteEvaluation:
    """Run a policy through a suite, task after task.

    Args:
        policy: loaded for the platform that :meth:`Suite.fit` gave.
        suite: what to run.
        trials: episodes a task, the first ones of the protocol; None for all of them.
        seed: of the random numbers that the simulators draw.
        progress: called with each episode as it ends, not with those of the store.
        store: has the episodes of an earlier run that was stopped, and takes new ones.

    Raises:
        HbvlaError: no package, no policy for this suite, more trials than there are.
    """
    tasks = suite.tasks()
    check_trials(suite, tasks, trials)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the simulators draw from NumPy's global generator
    started = time.perf_counter()
    policy.warmup()
    episodes: list[EpisodeResult] = []
    for task in tasks:
        numbers = range(trials or task.trials)
        known = {trial: store and store.get(task.name, trial) for trial in numbers}
        if all(known.values()):
            episodes += [SuiteEpisode.from_record(known[trial] or {}) for trial in numbers]
            continue
        with _opened(suite, task) as scene:
            for trial in numbers:
                record = known[trial]
                if record:
                    scene.skip(trial)
                    episodes.append(SuiteEpisode.from_record(record))
                    continue
                episodes.append(run_trial(policy, scene, task, trial, suite.step))
                if store is not None:
                    store.put(task.name, trial, episodes[-1].record())
                if progress is not None:
                    progress(episodes[-1])
    settings = {
        'where': suite.name,
        'execute': policy.platform.chunk,
        'max_steps': {task.name: task.max_steps for task in tasks},
        'trials': {task.name: trials or task.trials for task in tasks},
        'seed': seed,
        'statistics_key': policy.platform.statistics_key,
        **suite.settings,
    }
    return SuiteEvaluation(
        policy.checkpoint,
        suite.label,
        episodes,
        settings,
        time.perf_counter() - started,
        tasks=[task.name for task in tasks],
    )


def check_trials(suite: Suite, tasks: Sequence[SuiteTask], trials: int | None) -> None:
    """Refuse episodes that the published protocol does not have.

    Raises:
        HbvlaError: fewer than one, or more than one of the tasks has.
    """
    least = min(task.trials for task in tasks)
    if trials is not None and not 1 <= trials <= least:
        raise HbvlaError(
            f'{trials} episodes a task: {suite.label} has 1 to {least} of them; '
            'leave --episodes out for all'
        )


@contextmanager
def _opened(suite: Suite, task: SuiteTask) -> Iterator[Scene]:
    with _simulator(task.name):
        scene = suite.open(task)
    try:
        yield scene
    finally:
        scene.close()


@contextmanager
def _simulator(where: str) -> Iterator[None]:
    """Name the episode in whatever a simulator raises; counting it as a failure would lie."""
    try:
        yield
    except HbvlaError:
        raise
    except Exception as error:  # of several libraries, none of which names its errors
        lines = str(error).strip().splitlines()
        reason = f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
        raise HbvlaError(f'{where}: the simulator failed ({reason})') from error
