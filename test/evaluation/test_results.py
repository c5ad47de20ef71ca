# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import results
from hbvla_ros.evaluation.action_error import ErrorSums
from hbvla_ros.evaluation.plan import Candidate, Settings, closed_loop_units, comparison_units
from hbvla_ros.sim.tasks.registry import find_task

FULL, POOR = Candidate('/models/full', 'full@1'), Candidate('/models/poor', 'poor@2')
TASKS = ('pick_place', 'sequence')
SEEDS = range(3_000_000, 3_000_010)
DIGESTS = {'pick_place': 'f00d' * 16, 'sequence': 'cafe' * 16}
SUCCESSES = {
    ('full@1', 'pick_place'): 9, ('full@1', 'sequence'): 7,
    ('poor@2', 'pick_place'): 4, ('poor@2', 'sequence'): 0,
}  # fmt: skip


def record(seed: int, success: bool) -> dict:
    return {
        'seed': seed, 'instruction': 'do it', 'success': success, 'stage': 4 if success else 1,
        'stage_name': 'x', 'duration_s': 4.0 if success else 16.0,
        'time_to_success_s': 4.0 if success else None, 'chunks': 2, 'jerk_rms': 7.5,
        'latency_p50_s': 0.02, 'latency_p95_s': 0.04, 'latencies': [0.02, 0.04],
    }  # fmt: skip


def outcome(unit) -> dict:
    if unit.reference is not None:
        random = np.random.default_rng(unit.seeds[0])
        wanted = random.normal(size=(6, 4, 14))
        stages = len(find_task(unit.task).stages)
        return {
            'seconds': 2.0,
            'errors': ErrorSums.of([0, 1] * 3, stages, wanted + 0.1, wanted).to_json(),
        }
    wins = SUCCESSES[unit.candidate.identity, unit.task]
    return {
        'seconds': 3.0,
        'episodes': [record(seed, seed - SEEDS[0] < wins) for seed in unit.seeds],
        'settings': {'max_steps': 400, 'trace_rate_hz': 25.0, 'settle_seconds': 0.0},
    }


@pytest.fixture
def finished():
    """Results and totals of two checkpoints in two tasks."""
    units = closed_loop_units([FULL, POOR], TASKS, SEEDS, Settings(parallel=4))
    units += comparison_units([FULL, POOR], FULL, TASKS, SEEDS[:3])
    # In the order in which workers may end them.
    outcomes = {unit: outcome(unit) for unit in units[::-1]}
    found = results.task_results(outcomes, units, Settings(parallel=4), DIGESTS, 2.0)
    sums = results.error_sums(outcomes)
    totals = results.totals(found, sums)
    results.add_action_errors(found, sums, FULL.identity)
    return found, totals


def test_a_result_has_what_its_readers_know(finished):
    result = finished[0][2]
    assert (result['checkpoint'], result['task']) == ('poor@2', 'pick_place')
    assert (result['success_rate'], result['episodes'], result['successes']) == (0.4, 10, 4)
    assert result['interval'] == pytest.approx([0.16818, 0.68733], abs=1e-5)
    assert result['seeds'] == list(SEEDS) and result['folder'] == '/models/poor'
    assert [row['seed'] for row in result['rows']] == list(SEEDS)
    assert 'latencies' not in result['rows'][0]
    # Three groups of 3 s, two at a time.
    assert result['wall_seconds'] == 4.5
    assert (result['latency_p50_s'], result['time_to_success_p50_s']) == (0.03, 4.0)
    assert result['jerk_rms_p50'] == 7.5
    assert result['settings']['parallel'] == 4 and result['settings']['max_steps'] == 400
    assert result['settings']['max_seconds'] == 16.0
    assert result['digests']['task'] == 'f00d' * 16 and len(result['digests']['settings']) == 64
    stages = result['stages']
    assert list(stages)[0] == 'touched' and list(stages.values()) == [10, 4, 4, 4]


def test_totals_are_over_all_tasks(finished):
    full, poor = finished[1]
    assert (full['checkpoint'], full['successes'], full['episodes']) == ('full@1', 16, 20)
    assert full['mean_success_rate'] == pytest.approx(0.8) == full['success_rate']
    assert full['interval'] == pytest.approx([0.58398, 0.91934], abs=1e-5)
    assert poor['tasks'] == list(TASKS) and 'action_error' not in full
    assert poor['action_error']['frames'] == 36
    assert poor['action_error']['rms'] == pytest.approx(0.1)


def test_action_errors_stand_beside_the_success(finished):
    by_key = {(one['checkpoint'], one['task']): one for one in finished[0]}
    error = by_key['poor@2', 'sequence']['action_error']
    assert error['reference'] == 'full@1' and error['frames'] == 18
    assert len(error['by_row']) == 4 and error['by_stage']['nothing']['frames'] == 9
    assert 'action_error' not in by_key['full@1', 'sequence']


def test_pairs_are_counted_by_task_and_seed(finished):
    found, totals = finished
    results.add_pairs(found, totals, [one for one in found if one['checkpoint'] == 'full@1'])
    assert 'paired' not in totals[0] and 'paired' not in found[0]
    pairs = found[2]['paired']
    assert (pairs['reference'], pairs['both'], pairs['only_reference']) == ('full@1', 4, 5)
    assert pairs['p_value'] == pytest.approx(2 / 32)
    whole = totals[1]['paired']
    assert (whole['both'], whole['only_this'], whole['only_reference']) == (4, 0, 12)
    assert whole['kept'] == pytest.approx(4 / 16)
    assert whole['kept_interval'][0] < 0.25 < whole['kept_interval'][1]
    assert json.loads(json.dumps(found)) == found and json.loads(json.dumps(totals)) == totals


def written(tmp_path, found, **changes):
    path = tmp_path / 'earlier.json'
    path.write_text(json.dumps({'results': [{**one, **changes} for one in found]}))
    return path


def test_an_earlier_result_is_cut_to_the_seeds_of_now(finished, tmp_path):
    path = written(tmp_path, finished[0])
    earlier = results.earlier_reference(path, TASKS[:1], SEEDS[4:], DIGESTS)
    assert [(one['checkpoint'], one['task']) for one in earlier] == [('full@1', 'pick_place')]
    assert (earlier[0]['successes'], earlier[0]['episodes']) == (5, 6)
    assert earlier[0]['seeds'] == list(SEEDS[4:])
    # The first release wrote one result alone, without digests and jerk.
    old = {key: value for key, value in finished[0][0].items() if key != 'digests'}
    old['rows'] = [{k: v for k, v in row.items() if k != 'jerk_rms'} for row in old['rows']]
    path.write_text(json.dumps(old))
    assert results.earlier_reference(path, TASKS[:1], SEEDS, DIGESTS)[0]['successes'] == 9


def test_a_checkpoint_may_be_compared_with_its_own_earlier_result(finished, tmp_path):
    found, totals = finished
    totals[0]['stored_bits_per_weight'] = 16.0
    path = tmp_path / 'over_ros.json'
    path.write_text(json.dumps({'results': found, 'totals': totals}))
    earlier = results.earlier_reference(path, TASKS, SEEDS, DIGESTS, ['full@1'])
    assert {one['checkpoint'] for one in earlier} == {'full@1 in over_ros.json'}
    both = [*results.totals(earlier, {}), *totals]
    assert both[0]['stored_bits_per_weight'] == 16.0
    results.add_pairs([*earlier, *found], both, earlier)
    assert both[1]['paired']['both'] == 16 and 'paired' not in both[0]


def test_an_earlier_result_that_does_not_fit_is_refused(finished, tmp_path):
    path = written(tmp_path, finished[0])
    with pytest.raises(HbvlaError, match='has no episodes of task stack'):
        results.earlier_reference(path, ['stack'], SEEDS, {'stack': 'x'})
    with pytest.raises(HbvlaError, match=r'not run on seed 3000010 \(2 of 12 are missing\)'):
        results.earlier_reference(path, TASKS, range(3_000_000, 3_000_012), DIGESTS)
    with pytest.raises(HbvlaError, match='task pick_place has changed since .f00df00d then'):
        results.earlier_reference(path, TASKS, SEEDS, {**DIGESTS, 'pick_place': 'beef' * 16})
    path.write_text('{"rows": 3}')
    with pytest.raises(HbvlaError, match='not a result of hbvla eval'):
        results.read_results(path)
    with pytest.raises(HbvlaError, match='gone.json: cannot read it: No such file'):
        results.read_results(tmp_path / 'gone.json')


def test_a_reference_without_the_task_is_refused(finished):
    found, totals = finished
    with pytest.raises(HbvlaError, match='has no episodes of task sequence'):
        results.add_pairs(found, totals, found[:1])
