# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Real simulations and real worker processes, with the smallest network."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.executors import default_workers
from hbvla_ros.evaluation.harness import Execution, run
from hbvla_ros.evaluation.plan import (
    Candidate,
    Settings,
    closed_loop_units,
    comparison_units,
)
from hbvla_ros.evaluation.work_file import WorkFile, header

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}
SETTINGS = Settings(max_seconds=0.4, camera_size=48)
HERE = Execution(workers=0)
SEEDS = range(3_000_000, 3_000_004)
TASKS = ('pick_place', 'sequence')


@pytest.fixture
def candidate(make_tiny_checkpoint) -> Candidate:
    return Candidate(str(make_tiny_checkpoint('random', platform=SIMULATED)), 'random@1')


def without_times(outcome):
    """An outcome less what the clock on the wall decides."""
    rows = [
        {key: value for key, value in one.items() if not key.startswith('latenc')}
        for one in outcome.get('episodes', [])
    ]
    return {**outcome, 'episodes': rows, 'seconds': 0}


def test_the_number_of_workers_does_not_change_the_result(candidate):
    units = closed_loop_units([candidate], TASKS[:1], SEEDS, dataclasses.replace(SETTINGS))
    units += comparison_units(
        [dataclasses.replace(candidate, identity='random@2')], candidate, TASKS[1:], SEEDS[:1]
    )
    # Not in the order in which they are run here, and shared by two processes.
    spread = run(units[::-1], SETTINGS, Execution(workers=2))
    alone = run(units, SETTINGS, HERE)
    assert len(units) == 5 and set(alone) == set(spread) == set(units)
    for unit in units:
        assert without_times(alone[unit]) == without_times(spread[unit])
    record = alone[units[0]]['episodes'][0]
    assert record['seed'] == SEEDS[0] and record['chunks'] == len(record['latencies']) == 2
    assert alone[units[0]]['settings'] == {
        'max_steps': 10, 'trace_rate_hz': 25.0, 'settle_seconds': 0.0,
    }  # fmt: skip
    assert sum(alone[units[-1]]['errors']['frames']) == 2


def test_groups_have_fixed_members(candidate):
    grouped = dataclasses.replace(SETTINGS, parallel=3)
    units = closed_loop_units([candidate], TASKS, SEEDS, grouped)
    assert [unit.seeds for unit in units] == [tuple(SEEDS[:3]), tuple(SEEDS[3:])] * 2
    assert len({unit.key for unit in units}) == 4
    outcomes = run(units[:1], grouped, HERE)
    assert [one['seed'] for one in outcomes[units[0]]['episodes']] == list(SEEDS[:3])


def test_a_stopped_run_goes_on_and_ends_as_if_nothing_had_happened(candidate, tmp_path):
    units = closed_loop_units([candidate], TASKS[:1], SEEDS, SETTINGS)
    whole = run(units, SETTINGS, HERE)
    content = header(SETTINGS.to_json(), {candidate.folder: candidate.identity}, {})

    def stop_after_two(unit, outcome):
        if unit == units[1]:
            raise KeyboardInterrupt

    work = WorkFile(tmp_path / 'work.jsonl', content, resume=False)
    with pytest.raises(KeyboardInterrupt):
        run(units, SETTINGS, HERE, work, stop_after_two)
    work.close()
    seen = []
    work = WorkFile(tmp_path / 'work.jsonl', content, resume=True)
    assert set(work.known) == {unit.key for unit in units[:2]}
    resumed = run(units, SETTINGS, HERE, work, lambda unit, _: seen.append(unit))
    assert seen == units
    # The two that were done are taken over with their times, the others run again.
    assert resumed[units[0]] == work.known[units[0].key]
    for unit in units:
        assert without_times(resumed[unit]) == without_times(whole[unit])


def test_an_error_in_a_worker_is_the_one_line(candidate):
    missing = dataclasses.replace(candidate, folder=candidate.folder + '-gone')
    units = closed_loop_units([missing], TASKS[:1], SEEDS, SETTINGS)
    for execution in (HERE, Execution(workers=1)):
        with pytest.raises(HbvlaError, match='random-gone: no such checkpoint folder') as caught:
            run(units, SETTINGS, execution)
        assert '\n' not in str(caught.value)


def test_a_worker_that_is_killed_is_one_line(candidate):
    units = closed_loop_units([candidate], TASKS[:1], SEEDS, SETTINGS)
    done = []

    def kill(unit, outcome):
        done.append(unit)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(HbvlaError, match='a worker process was killed, .* fewer --workers'):
        run(units, SETTINGS, Execution(workers=1), done=kill)
    assert done and len(done) < len(units)


def test_no_renderer_is_told_before_anything_starts(candidate, monkeypatch):
    from hbvla_ros.sim import rendering

    monkeypatch.setattr(rendering, '_chosen', [])
    monkeypatch.delenv('HBVLA_GL_CHECKED', raising=False)
    monkeypatch.setattr(rendering, 'backend_works', lambda name: False)
    units = closed_loop_units([candidate], TASKS[:1], SEEDS, SETTINGS)
    with pytest.raises(HbvlaError, match='no rendering backend works'):
        run(units, SETTINGS, Execution(workers=2))


def test_workers_do_not_outlive_a_parent_that_is_killed(candidate, tmp_path):
    program = (
        'import multiprocessing, threading, time\n'
        'from hbvla_ros.evaluation.harness import Execution, run\n'
        'from hbvla_ros.evaluation.plan import Candidate, Settings, closed_loop_units\n'
        'def tell():\n'
        '    while not multiprocessing.active_children():\n'
        '        time.sleep(0.02)\n'
        '    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n'
        'if __name__ == "__main__":\n'
        '    threading.Thread(target=tell, daemon=True).start()\n'
        f'    units = closed_loop_units([{candidate!r}], ["pick_place"], range(3000000, 3000400),\n'
        '                              Settings())\n'
        '    run(units, Settings(), Execution(workers=1))\n'
    )
    (tmp_path / 'program.py').write_text(program)
    arguments = [sys.executable, str(tmp_path / 'program.py')]
    parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(children) == 1
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
            return file.read().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def test_bad_plans_are_refused(candidate):
    with pytest.raises(HbvlaError, match='checkpoint random@1: named twice'):
        closed_loop_units([candidate, candidate], TASKS, SEEDS, SETTINGS)
    with pytest.raises(HbvlaError, match='task pick_place: named twice'):
        closed_loop_units([candidate], ['pick_place'] * 2, SEEDS, SETTINGS)
    with pytest.raises(HbvlaError, match='0 episodes'):
        closed_loop_units([candidate], TASKS, [], SETTINGS)
    with pytest.raises(HbvlaError, match='--workers -1'):
        run(closed_loop_units([candidate], TASKS, SEEDS, SETTINGS), SETTINGS, Execution(-1))


def test_a_gpu_is_not_shared_by_many_workers():
    assert default_workers('cuda:0') == 1
    assert default_workers('cpu') >= 1
