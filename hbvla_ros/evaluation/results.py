# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Outcomes of an evaluation as its results: by checkpoint and task, in total, and in pairs."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.action_error import ErrorSums
from hbvla_ros.evaluation.paired import Pairs, kept_success
from hbvla_ros.evaluation.plan import Outcome, Settings, Unit
from hbvla_ros.evaluation.summary import summarise, total
from hbvla_ros.sim.tasks.registry import find_task

Result = dict[str, Any]
# Of a checkpoint's folder; written beside its totals.
SIZES = ('method', 'stored_bits_per_weight', 'nominal_bits_per_weight', 'folder_bytes')


def task_results(
    outcomes: Mapping[Unit, Outcome],
    units: Sequence[Unit],
    settings: Settings,
    digests: Mapping[str, str],
    at_a_time: float,
) -> list[Result]:
    """One result for each checkpoint and task, in the order of the units.

    Args:
        outcomes: of all units.
        units: of the plan.
        settings: how they were run.
        digests: task to digest.
        at_a_time: units that ran at a time, on average, for the time that a result took.
    """
    groups: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        if unit.reference is None:
            groups.setdefault((unit.candidate.identity, unit.task), []).append(unit)
    results = []
    for (identity, task), members in groups.items():
        found = [outcomes[unit] for unit in members]
        records = [record for outcome in found for record in outcome['episodes']]
        details = {**settings.to_json(), **found[0]['settings']}
        paces = [one['real_time_factor'] for one in records if 'real_time_factor' in one]
        if paces:
            details['achieved_real_time_factor'] = round(median(paces), 3)
        if details['max_seconds'] is None:
            details['max_seconds'] = find_task(task).max_seconds
        seconds = sum(outcome['seconds'] for outcome in found) / at_a_time
        result = summarise(identity, task, records, details, seconds)
        result['folder'] = members[0].candidate.folder
        result['digests'] = {'task': digests[task], 'settings': settings.digest()}
        results.append(result)
    return results


def error_sums(outcomes: Mapping[Unit, Outcome]) -> dict[tuple[str, str], ErrorSums]:
    """Checkpoint and task to the sums over all episodes of the reference."""
    sums: dict[tuple[str, str], ErrorSums] = {}
    # In an order of their own, so that rounding does not depend on which unit ended first.
    for unit in sorted((one for one in outcomes if one.reference), key=lambda one: one.key):
        key = (unit.candidate.identity, unit.task)
        found = ErrorSums.from_json(outcomes[unit]['errors'])
        sums[key] = sums[key] + found if key in sums else found
    return sums


def totals(results: Sequence[Result], sums: Mapping[tuple[str, str], ErrorSums]) -> list[Result]:
    """Each checkpoint over all its tasks, in the order of the results."""
    rows = []
    for identity in dict.fromkeys(one['checkpoint'] for one in results):
        mine = [one for one in results if one['checkpoint'] == identity]
        row = {**total(mine), 'folder': mine[0]['folder']}
        row.update({key: mine[0][key] for key in SIZES if key in mine[0]})
        errors = [value.without_stages() for (name, _), value in sums.items() if name == identity]
        if errors:
            whole = errors[0]
            for one in errors[1:]:
                whole = whole + one
            row['action_error'] = whole.report()
        rows.append(row)
    return rows


def add_action_errors(
    results: Sequence[Result], sums: Mapping[tuple[str, str], ErrorSums], reference: str
) -> None:
    """Write ``action_error`` into the results that have one.

    Args:
        results: of :func:`task_results`.
        sums: of :func:`error_sums`.
        reference: identity of the checkpoint that drove.
    """
    for result in results:
        found = sums.get((result['checkpoint'], result['task']))
        if found is not None:
            stages = find_task(result['task']).stages
            result['action_error'] = {'reference': reference, **found.report(stages)}


def add_pairs(
    results: Sequence[Result], all_totals: Sequence[Result], reference: Sequence[Result]
) -> None:
    """Write ``paired`` into results and totals.

    Args:
        results: of :func:`task_results`.
        all_totals: of :func:`totals` over the same results.
        reference: results of the reference, one a task, on the same seeds.

    Raises:
        HbvlaError: the reference lacks a task or a seed.
    """
    identity = reference[0]['checkpoint']
    theirs = {one['task']: one for one in reference}
    for row in all_totals:
        mine = [one for one in results if one['checkpoint'] == row['checkpoint']]
        if row['checkpoint'] == identity:
            continue
        for result in mine:
            other = theirs.get(result['task'])
            if other is None:
                raise HbvlaError(
                    f'--against {identity}: has no episodes of task {result["task"]}; run it there'
                )
            pairs = Pairs.of(_outcomes([result]), _outcomes([other]))
            result['paired'] = _paired_json(identity, pairs)
        tasks = [theirs[result['task']] for result in mine]
        row['paired'] = _paired_json(identity, Pairs.of(_outcomes(mine), _outcomes(tasks)))


def _paired_json(reference: str, pairs: Pairs) -> Result:
    kept = kept_success(pairs)
    return {
        'reference': reference,
        **pairs.to_json(),
        'kept': kept and kept.share,
        'kept_interval': kept and [kept.interval.low, kept.interval.high],
    }


def _outcomes(results: Sequence[Result]) -> dict[Hashable, bool]:
    return {
        (result['task'], row['seed']): bool(row['success'])
        for result in results
        for row in result['rows']
    }


def read_results(path: Path) -> list[Result]:
    """Results of an earlier run, from its JSON.

    Raises:
        HbvlaError: unreadable, or not written by ``hbvla eval``.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        results = content['results'] if 'results' in content else [content]
        rows = {row['checkpoint']: row for row in content.get('totals', [])}
        for result in results:
            for row in result['rows']:
                row['seed'], row['success'], row['stage'], row['duration_s']
            result['checkpoint'], result['task'], result['folder']
            size = rows.get(result['checkpoint'], {})
            result.update({key: size[key] for key in SIZES if key in size})
    except OSError as error:
        raise HbvlaError(f'{path}: cannot read it: {error.strerror or error}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise HbvlaError(f'{path}: not a result of hbvla eval ({error})') from error
    return list(results)


def earlier_reference(
    path: Path,
    tasks: Sequence[str],
    seeds: Sequence[int],
    digests: Mapping[str, str],
    names: Sequence[str] = (),
) -> list[Result]:
    """The first checkpoint of an earlier run, cut to the seeds of this one.

    Args:
        path: JSON of the run.
        tasks: that are needed.
        seeds: that are needed.
        digests: task to digest now.
        names: identities of this run; one that was run then as well gets the file's name added.

    Raises:
        HbvlaError: a task or seed is missing, or the task was another one then.
    """
    results = read_results(path)
    identity = results[0]['checkpoint']
    first = [one for one in results if one['checkpoint'] == identity]
    name = f'{identity} in {path.name}' if identity in names else identity
    by_task = {one['task']: one for one in first}
    found = []
    for task in tasks:
        if task not in by_task:
            raise HbvlaError(f'{path}: has no episodes of task {task}; run it there first')
        result = by_task[task]
        then = result.get('digests', {}).get('task', digests[task])
        if then != digests[task]:
            raise HbvlaError(
                f'{path}: task {task} has changed since ({then[:8]} then, {digests[task][:8]} '
                'now); run the reference again'
            )
        rows = {row['seed']: row for row in result['rows']}
        missing = [seed for seed in seeds if seed not in rows]
        if missing:
            raise HbvlaError(
                f'{path}: task {task} was not run on seed {missing[0]} ({len(missing)} of '
                f'{len(seeds)} are missing); use the seeds of that run, or run it again'
            )
        records = [{'jerk_rms': None, 'latencies': [], **rows[seed]} for seed in seeds]
        cut = summarise(name, task, records, result['settings'], 0.0)
        found.append({**result, **{key: cut[key] for key in _RECOUNTED}})
    return found


_RECOUNTED = (
    'checkpoint', 'episodes', 'successes', 'success_rate', 'interval', 'text', 'stages', 'seeds',
    'rows', 'time_to_success_p50_s', 'time_to_success_p95_s',
)  # fmt: skip
