# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What is kept of one closed-loop episode, and of all episodes of one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.motion import jerk_rms
from hbvla_ros.evaluation.statistics import Percentiles, SuccessRate
from hbvla_ros.evaluation.summary import summarise
from hbvla_ros.sim.seeds import RANGES, check_disjoint, check_purpose, seed_range
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task


@dataclass(frozen=True)
class Trace:
    """What was commanded and what was measured, one row a control step if nothing else is said.

    Attributes:
        times: float64 (T,), seconds since the start of the episode.
        commands: float64 (T, A), joint targets in rad and grippers 0 to 1.
        positions: float64 (T, A), measured at the same times.
        sent: float64 (N, A), the commands as they were sent, one after the other, where rows are
            not control steps but of a rate of their own; else None.
        control_period: seconds from one of ``sent`` to the next; needed with these only.
    """

    times: NDArray[np.float64]
    commands: NDArray[np.float64]
    positions: NDArray[np.float64]
    sent: NDArray[np.float64] | None = None
    control_period: float | None = None

    def __len__(self) -> int:
        """Number of control steps T."""
        return len(self.times)


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        seed: decides scene, instruction and start pose.
        instruction: what the policy was asked for.
        success: whether the task was done in time.
        stage: furthest progress, an index into the task's stages.
        duration: simulated time from start to success or end, in seconds.
        chunks: action chunks that the policy computed.
        latencies: seconds of each policy call, on the clock its caller lives by.
        trace: commands and measured positions.
        task: name of the task.
        real_time_factor: simulated seconds a second over the episode, where the clock counts.
    """

    seed: int
    instruction: str
    success: bool
    stage: int
    duration: float
    chunks: int
    latencies: tuple[float, ...]
    trace: Trace
    task: str = DEFAULT_TASK
    real_time_factor: float | None = None

    @property
    def time_to_success(self) -> float | None:
        """Simulated seconds until the task was done, ``None`` if it never was."""
        return self.duration if self.success else None

    def row(self) -> dict[str, Any]:
        """The episode as plain JSON types, without its trace."""
        latency, jerk = Percentiles.of(self.latencies), jerk_rms(self.trace)
        factor = self.real_time_factor
        pace = {} if factor is None else {'real_time_factor': round(factor, 3)}
        return {
            'seed': self.seed,
            'instruction': self.instruction,
            'success': self.success,
            'stage': self.stage,
            'stage_name': find_task(self.task).stages[self.stage],
            'duration_s': round(self.duration, 3),
            'time_to_success_s': None if not self.success else round(self.duration, 3),
            'chunks': self.chunks,
            'jerk_rms': None if jerk is None else round(jerk, 4),
            'latency_p50_s': latency and round(latency.p50, 5),
            'latency_p95_s': latency and round(latency.p95, 5),
            **pace,
        }

    def record(self) -> dict[str, Any]:
        """The row and the single latencies: all that a summary needs."""
        return {**self.row(), 'latencies': [round(value, 5) for value in self.latencies]}


@dataclass(frozen=True)
class Evaluation:
    """All episodes of one checkpoint.

    Attributes:
        checkpoint: identity of the checkpoint.
        task: name of the task.
        episodes: in the order of their seeds.
        settings: how they were run, plain JSON types.
        wall_seconds: time that all of them took together.
    """

    checkpoint: str
    task: str
    episodes: Sequence[EpisodeResult]
    settings: Mapping[str, Any] = field(default_factory=dict)
    wall_seconds: float = 0.0

    @property
    def success(self) -> SuccessRate:
        """Successes among the episodes."""
        return SuccessRate.of([episode.success for episode in self.episodes])

    @property
    def latency(self) -> Percentiles | None:
        """Policy calls of all episodes together, in seconds."""
        return Percentiles.of([value for one in self.episodes for value in one.latencies])

    @property
    def time_to_success(self) -> Percentiles | None:
        """Simulated seconds until success, over the successful episodes."""
        return Percentiles.of([one.duration for one in self.episodes if one.success])

    def to_json(self) -> dict[str, Any]:
        """Everything except the traces, as plain JSON types."""
        records = [episode.record() for episode in self.episodes]
        return summarise(self.checkpoint, self.task, records, self.settings, self.wall_seconds)


def evaluation_seeds(episodes: int, seed: int, checkpoint: Path | None = None) -> range:
    """Seeds that no demonstration and no validation run may use.

    Args:
        episodes: how many.
        seed: number of the first one within the reserved range, or the first one itself.
        checkpoint: a folder; the seeds that its ``training.json`` names are refused.

    Raises:
        HbvlaError: no episodes, seeds beyond the range that is reserved for evaluation, or one
            that the checkpoint was trained on.
    """
    if episodes < 1:
        raise HbvlaError(f'{episodes} episodes: run at least one')
    if 0 <= seed < len(RANGES['evaluation']):
        seeds = seed_range('evaluation', episodes, seed)
    else:
        seeds = range(seed, seed + episodes)
        check_purpose(seeds, 'evaluation')
    if checkpoint is not None:
        for purpose, used in _training_seeds(checkpoint / 'training.json').items():
            check_disjoint(used, seeds, (f'{purpose} of {checkpoint}', 'this evaluation'))
    return seeds


def _training_seeds(path: Path) -> dict[str, range]:
    """Seeds that a training summary names, as ranges that hold them; none without a summary."""
    try:
        summary = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HbvlaError(f'{path}: not readable ({error}); restore or remove it') from error
    named = {key: summary.get(key) for key in ('training_seeds', 'validation_seeds')}
    return {
        key.replace('_', ' '): range(ends[0], ends[1] + 1) for key, ends in named.items() if ends
    }
