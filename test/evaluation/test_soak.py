# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What of a soak is a failure, and what its report says."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import memory_track
from hbvla_ros.evaluation.memory_track import Growth, MemoryTrack, growth, resident
from hbvla_ros.evaluation.soak import SoakOptions, SoakResult
from hbvla_ros.evaluation.soak_report import to_json, to_markdown


def fault(verdict='as specified', name='camera stops', seconds=0.12, **changes):
    hold = {'seconds': seconds, 'standstill': 0.0, 'together': 0.0, 'bound': 0.25}
    return {
        'event': 'fault', 'name': name, 'at': 3.0, 'verdict': verdict, 'text': '', 'hold': hold,
        'latched': False, 'recovery': 0.4, **changes,
    }  # fmt: skip


def memory(grows=False):
    return {
        'name': 'arm_node', 'processes': 2, 'seconds': 300.0, 'first': 90.0, 'last': 91.0,
        'largest': 91.0, 'slope': 12.0 if grows else 0.5, 'half_width': 0.25, 'grows': grows,
    }  # fmt: skip


def result(*events, grows=False, **changes):
    wire = {'arm': 'left', 'commands': 500, 'lost': 1, 'widest_step': 0.75}
    summary = {
        'event': 'done', 'seconds': 60.0, 'violations': 0, 'wire': [wire],
        'memory': [memory(grows)],
    }  # fmt: skip
    return SoakResult(SoakOptions(minutes=1.0), list(events), summary, **changes)


def test_a_soak_in_which_all_is_as_specified_has_no_failures():
    stop = {'event': 'unasked stop', 'at': 1.0, 'reason': 'stopped: x'}
    assert result(fault(), stop, fault('undecided', hold=None)).failures == []


def test_the_stage_may_grow():
    made = result(fault(), grows=True)
    made.summary['memory'][0]['name'] = 'soak'
    assert made.failures == []


@pytest.mark.parametrize(
    'made, expected',
    [
        (result(fault('late', seconds=0.4)), 'camera stops: late'),
        (result(fault('not as specified', text='they move')), 'not as specified they move'),
        (
            result(fault(), {'event': 'violation', 'during': 'normal operation', 'kind': 'step',
                             'text': 'waist', 'at': 1.0}),
            'normal operation: step: waist',
        ),
        (result(fault(), grows=True), 'arm_node: memory grows by 12.0 MB/h'),
        (result(fault(), ended='arm_node ended'), 'ended early: arm_node ended'),
        (result(), 'no fault was brought about'),
    ],
)  # fmt: skip
def test_whatever_must_not_be_is_a_failure(made, expected):
    [line] = made.failures
    assert expected in line


def test_the_report_counts_and_is_plain_json():
    made = result(fault(), fault(seconds=0.2), fault('late', 'NaN action', 0.5, latched=True))
    content = json.loads(json.dumps(to_json(made, 'hbvla soak --out a.json')))
    row = content['faults']['camera stops']
    assert row['count'] == row['as_specified'] == 2
    assert row['hold_median'] == pytest.approx(0.16) and row['hold_longest'] == 0.2
    assert content['faults']['NaN action']['late'] == 1
    text = to_markdown(content)
    assert '1 failures' in text and '- NaN action: late' in text
    assert '| camera stops | 2 | 2 | 0 | goes on by itself | 0.16 s | 0.20 s | 0.25 s |' in text
    assert '+0.50 ± 0.25' in text


def test_a_soak_that_ended_early_has_a_report_too():
    made = SoakResult(SoakOptions(), ended='killed')
    assert '- ended early: killed' in to_markdown(to_json(made, 'hbvla soak'))


@pytest.mark.parametrize(
    'changes, named',
    [
        ({'minutes': 0.0}, '--minutes 0'),
        ({'minutes': float('nan')}, '--minutes nan'),
        ({'time_scale': 100.0}, '--time-scale 100'),
        ({'seed': -1}, '--seed -1'),
        ({'faults': ('rain',)}, "--fault 'rain'"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(HbvlaError, match=named):
        SoakOptions(**changes).check()


def test_growth_has_to_be_certain():
    def grows(slope, half):
        return Growth('x', 1, 600.0, 1.0, 2.0, 2.0, slope, half).grows

    assert grows(30.0, 5.0)
    assert not grows(30.0, 25.0)
    assert not grows(None, None)


def test_memory_of_processes_is_followed(monkeypatch):
    monkeypatch.setattr(memory_track, '_PERIOD', 0.02)
    monkeypatch.setattr(memory_track, '_WARM_UP', 0.1)
    monkeypatch.setattr(memory_track, '_ENOUGH', 0.2)
    track, kept = MemoryTrack(lambda: {'me': os.getpid(), 'gone': 2**22 + 1}), []
    for _ in range(40):
        kept.append(np.ones(1_000_000))
        time.sleep(0.02)
    [mine] = track.close()
    assert mine.name == 'me' and mine.processes == 1
    assert mine.slope - mine.half_width > 1000.0
    assert mine.last - mine.first > 50.0
    assert resident(os.getpid()) >= mine.first


def test_processes_that_were_short_say_nothing_about_growth(monkeypatch):
    monkeypatch.setattr(memory_track, '_PERIOD', 0.02)
    monkeypatch.setattr(memory_track, '_WARM_UP', 0.1)
    monkeypatch.setattr(memory_track, '_ENOUGH', 5.0)
    track = MemoryTrack(lambda: {'me': os.getpid()})
    time.sleep(0.5)
    [mine] = track.close()
    assert mine.processes == 0 and mine.slope is None and not mine.grows
    assert 0.0 < mine.first <= mine.largest


def test_growth_is_found_inside_stretches_only():
    noise = np.random.default_rng(0).normal(0.0, 0.1, 200)
    times = np.arange(200.0)
    level = np.where(times < 100, 50.0, 80.0)
    flat = [list(zip(times[p], (level + noise)[p], strict=True)) for p in _halves(times)]
    slope, half = growth(flat)
    assert abs(slope) < half < 0.001
    grown = [[(t, v + 0.01 * t) for t, v in one] for one in flat]
    slope, half = growth(grown)
    assert slope == pytest.approx(0.01, abs=half) and half < 0.001
    assert growth([[(0.0, 1.0)]]) is None


def _halves(times):
    return times < 100, times >= 100
