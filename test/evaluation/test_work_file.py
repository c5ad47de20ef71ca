# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.plan import Candidate, Settings, Unit
from hbvla_ros.evaluation.work_file import WorkFile, header, work_path

CHECKPOINT = Candidate('/models/a', 'a@12345678')
UNITS = [Unit(CHECKPOINT, 'pick_place', (seed,)) for seed in (3, 4, 5)]
OUTCOME = {'seconds': 1.0, 'episodes': [{'seed': 3}]}


def content(**changes):
    parts = {
        'settings': Settings().to_json(),
        'checkpoints': {'/models/a': 'a@12345678'},
        'tasks': {'pick_place': 'f00d' * 16},
    }
    return header(**{**parts, **changes})


def stopped_run(path):
    work = WorkFile(path, content(), resume=False)
    work.add(UNITS[0], OUTCOME)
    work.add(UNITS[1], OUTCOME)
    work.close()


def test_it_lies_beside_the_result(tmp_path):
    assert work_path(tmp_path / 'table.json') == tmp_path / 'table.episodes.jsonl'


def test_a_stopped_run_goes_on(tmp_path):
    path = tmp_path / 'new' / 'work.jsonl'
    stopped_run(path)
    work = WorkFile(path, content(), resume=True)
    assert set(work.known) == {UNITS[0].key, UNITS[1].key}
    assert work.known[UNITS[0].key] == OUTCOME
    work.add(UNITS[2], OUTCOME)
    work.close()
    assert len(WorkFile(path, content(), resume=True).known) == 3
    assert [one.name for one in path.parent.iterdir()] == ['work.jsonl']


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / 'work.jsonl'
    stopped_run(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    work = WorkFile(path, content(), resume=True)
    assert set(work.known) == {UNITS[0].key}
    work.add(UNITS[1], OUTCOME)
    work.close()
    assert set(WorkFile(path, content(), resume=True).known) == {UNITS[0].key, UNITS[1].key}


def test_finished_episodes_are_not_lost_by_forgetting_to_resume(tmp_path):
    path = tmp_path / 'work.jsonl'
    stopped_run(path)
    before = path.read_bytes()
    with pytest.raises(HbvlaError, match='holds 2 finished episodes .* add --resume'):
        WorkFile(path, content(), resume=False)
    assert path.read_bytes() == before
    WorkFile(path, content(), resume=True).finish()
    # A run that came to its end may be repeated.
    assert not WorkFile(path, content(), resume=False).known


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'settings': Settings(parallel=4).to_json()}, 'was run with parallel 1, now it is 4'),
        ({'settings': Settings(max_seconds=2).to_json()}, 'max_seconds None, now it is 2'),
        (
            {'checkpoints': {'/models/a': 'a@99999999'}},
            'checkpoint /models/a has changed since .12345678 then, 99999999 now',
        ),
        ({'tasks': {'pick_place': 'beef' * 16}}, 'task pick_place has changed since'),
    ],
)
def test_what_was_run_in_another_way_is_refused(tmp_path, changes, message):
    path = tmp_path / 'work.jsonl'
    stopped_run(path)
    before = path.read_bytes()
    with pytest.raises(HbvlaError, match=message):
        WorkFile(path, content(**changes), resume=True)
    assert path.read_bytes() == before


def test_other_checkpoints_and_tasks_may_join(tmp_path):
    path = tmp_path / 'work.jsonl'
    stopped_run(path)
    more = content(checkpoints={'/models/b': 'b@00000000'}, tasks={'stack': '0' * 64})
    assert len(WorkFile(path, more, resume=True).known) == 2
    # Both headers count from now on.
    with pytest.raises(HbvlaError, match='checkpoint /models/b has changed'):
        WorkFile(path, content(checkpoints={'/models/b': 'b@11111111'}), resume=True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"success_rate": 1}\n', 'is no work file of this release'),
        ('nonsense\n', 'line 1: damaged'),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / 'work.jsonl'
    path.write_text(text)
    for resume in (True, False):
        with pytest.raises(HbvlaError, match=message):
            WorkFile(path, content(), resume)
    assert path.read_text() == text
