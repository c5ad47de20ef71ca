# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What is kept of one episode of a suite, and of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hbvla_ros.evaluation.episode import EpisodeResult, Evaluation, Trace
from hbvla_ros.evaluation.statistics import Percentiles, SuccessRate


@dataclass(frozen=True)
class SuiteEpisode(EpisodeResult):
    """One episode of a suite.

    ``seed`` is its number in the suite, ``stage`` 1 on success, the trace's ``commands`` (T, 7)
    are the rows of the chunks and its ``positions`` (T, P) the proprioception.

    Attributes:
        task: name of the task.
        trial: number of the episode within the task.
    """

    task: str = ''
    trial: int = 0

    def row(self) -> dict[str, Any]:
        """The episode as plain JSON types, without its trace."""
        latency = Percentiles.of(self.latencies)
        return {
            'seed': self.seed,
            'task': self.task,
            'trial': self.trial,
            'instruction': self.instruction,
            'success': self.success,
            'duration_s': round(self.duration, 3),
            'time_to_success_s': round(self.duration, 3) if self.success else None,
            'chunks': self.chunks,
            'latency_p50_s': latency and round(latency.p50, 5),
            'latency_p95_s': latency and round(latency.p95, 5),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SuiteEpisode:
        """Inverse of :meth:`record`, without the trace."""
        same = ('seed', 'task', 'trial', 'instruction', 'success', 'chunks')
        return cls(
            **{key: record[key] for key in same},
            stage=int(record['success']),
            duration=record['duration_s'],
            latencies=tuple(record['latencies']),
            trace=Trace(np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0))),
        )


@dataclass(frozen=True)
class SuiteEvaluation(Evaluation):
    """All episodes of one checkpoint in a suite; also counted by task.

    Attributes:
        tasks: names in the order they were run.
    """

    tasks: Sequence[str] = field(default_factory=tuple)

    def by_task(self) -> dict[str, SuccessRate]:
        """Successes of each task."""
        rates = {}
        for task in self.tasks:
            episodes = [one for one in self.episodes if getattr(one, 'task', '') == task]
            rates[task] = SuccessRate.of([one.success for one in episodes])
        return rates

    def to_json(self) -> dict[str, Any]:
        """Everything except the traces, as plain JSON types."""
        latency, duration = self.latency, self.time_to_success
        return {
            'checkpoint': self.checkpoint,
            'task': self.task,
            **_rate_json(self.success),
            'time_to_success_p50_s': duration and round(duration.p50, 3),
            'latency_p50_s': latency and round(latency.p50, 5),
            'latency_p95_s': latency and round(latency.p95, 5),
            'wall_seconds': round(self.wall_seconds, 1),
            'settings': dict(self.settings),
            'tasks': [{'task': name, **_rate_json(rate)} for name, rate in self.by_task().items()],
            'rows': [episode.row() for episode in self.episodes],
        }


def _rate_json(rate: SuccessRate) -> dict[str, Any]:
    return {
        'episodes': rate.episodes,
        'successes': rate.successes,
        'success_rate': rate.rate,
        'interval': [rate.interval.low, rate.interval.high],
        'text': str(rate),
    }
