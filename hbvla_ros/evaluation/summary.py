# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Finished episodes as the JSON of ``hbvla eval``: of one checkpoint and task, and in total.

Works on records (:meth:`hbvla_ros.evaluation.episode.EpisodeResult.record`), which come from this
run or from the work file of an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hbvla_ros.evaluation.statistics import Percentiles, SuccessRate
from hbvla_ros.sim.tasks.registry import find_task

Record = Mapping[str, Any]


def summarise(
    checkpoint: str,
    task: str,
    records: Sequence[Record],
    settings: Mapping[str, Any],
    wall_seconds: float,
) -> dict[str, Any]:
    """The result of one checkpoint in one task.

    Args:
        checkpoint: its identity.
        task: name of the task.
        records: one an episode, at least one, in the order of their seeds.
        settings: how the episodes were run, plain JSON types.
        wall_seconds: time that they took.

    Raises:
        HbvlaError: unknown task, or no episodes.
    """
    success = SuccessRate.of([record['success'] for record in records])
    rate, interval = success.rate, success.interval
    latency = Percentiles.of([value for record in records for value in record['latencies']])
    duration = Percentiles.of([record['duration_s'] for record in records if record['success']])
    jerk = Percentiles.of([one['jerk_rms'] for one in records if one['jerk_rms'] is not None])
    return {
        'checkpoint': checkpoint,
        'task': task,
        'episodes': success.episodes,
        'successes': success.successes,
        'success_rate': rate,
        'interval': [interval.low, interval.high],
        'text': str(success),
        'stages': stages_reached(task, records),
        'time_to_success_p50_s': duration and round(duration.p50, 3),
        'time_to_success_p95_s': duration and round(duration.p95, 3),
        'jerk_rms_p50': jerk and round(jerk.p50, 3),
        'latency_p50_s': latency and round(latency.p50, 5),
        'latency_p95_s': latency and round(latency.p95, 5),
        'wall_seconds': round(wall_seconds, 1),
        'settings': dict(settings),
        'seeds': [record['seed'] for record in records],
        'rows': [
            {key: value for key, value in record.items() if key != 'latencies'}
            for record in records
        ],
    }


def stages_reached(task: str, records: Sequence[Record]) -> dict[str, int]:
    """How many episodes got at least as far as each stage of the task, from the second on.

    An episode that succeeded counts for all of them.
    """
    names = find_task(task).stages
    reached = [len(names) - 1 if one['success'] else one['stage'] for one in records]
    return {
        name: sum(stage >= index for stage in reached)
        for index, name in enumerate(names)
        if index > 0
    }


def total(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One checkpoint over all its tasks.

    Every episode counts alike, so that the interval is Wilson's; ``mean_success_rate`` weighs the
    tasks alike, which is the same where all have as many episodes.

    Args:
        results: of :func:`summarise`, one a task, at least one.
    """
    success = SuccessRate(
        sum(one['successes'] for one in results), sum(one['episodes'] for one in results)
    )
    interval = success.interval
    return {
        'checkpoint': results[0]['checkpoint'],
        'tasks': [one['task'] for one in results],
        'episodes': success.episodes,
        'successes': success.successes,
        'success_rate': success.rate,
        'mean_success_rate': sum(one['success_rate'] for one in results) / len(results),
        'interval': [interval.low, interval.high],
        'text': str(success),
    }
