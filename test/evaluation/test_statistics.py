# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.statistics import Interval, Percentiles, SuccessRate, wilson_interval

# Worked out by hand from Wilson's formula with z = 1.95996.
HAND_CHECKED = [
    (38, 40, 0.83496, 0.98618),
    (11, 30, 0.21874, 0.54487),
    (5, 10, 0.23659, 0.76341),
    (0, 24, 0.0, 0.13798),
    (24, 24, 0.86202, 1.0),
    (1, 1, 0.20654, 1.0),
]


@pytest.mark.parametrize(('successes', 'episodes', 'low', 'high'), HAND_CHECKED)
def test_wilson_interval_has_the_hand_checked_ends(successes, episodes, low, high):
    interval = wilson_interval(successes, episodes)
    assert interval.low == pytest.approx(low, abs=1e-5)
    assert interval.high == pytest.approx(high, abs=1e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_rate_and_mirrors_the_failures(counts):
    successes, episodes = counts
    interval = wilson_interval(successes, episodes)
    assert 0 <= interval.low <= successes / episodes <= interval.high <= 1
    mirrored = wilson_interval(episodes - successes, episodes)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)
    assert wilson_interval(successes, episodes, 0.99).low <= interval.low


@pytest.mark.parametrize(('successes', 'episodes'), [(0, 0), (-1, 4), (5, 4)])
def test_impossible_counts_are_refused(successes, episodes):
    with pytest.raises(HbvlaError, match='no success rate'):
        wilson_interval(successes, episodes)


def test_confidence_out_of_range_is_refused():
    with pytest.raises(HbvlaError, match='confidence 1.0'):
        wilson_interval(1, 2, confidence=1.0)


@pytest.mark.parametrize(
    ('successes', 'episodes', 'text'),
    [
        (38, 40, '38/40 = 95 % (83 to 99 %)'),
        (11, 30, '11/30 = 37 % (22 to 54 %)'),
        (0, 24, '0/24 = 0 % (0 to 14 %)'),
        (1, 8, '1/8 = 13 % (2 to 47 %)'),
    ],
)
def test_success_rate_reads_as_one_phrase(successes, episodes, text):
    assert str(SuccessRate(successes, episodes)) == text


def test_success_rate_counts_outcomes():
    rate = SuccessRate.of([True, False, True])
    assert (rate.successes, rate.episodes) == (2, 3)
    assert rate.rate == pytest.approx(2 / 3)
    with pytest.raises(HbvlaError, match='no episode'):
        _ = SuccessRate.of([]).rate


def test_overlap_separates_what_the_episodes_separate():
    good, fair, bad = SuccessRate(38, 40), SuccessRate(34, 40), SuccessRate(0, 24)
    assert good.agrees_with(fair) and fair.agrees_with(good)
    assert not good.agrees_with(bad) and not bad.agrees_with(good)
    assert Interval(0.0, 0.5).overlaps(Interval(0.5, 1.0))
    assert 0.5 in Interval(0.0, 0.5) and 0.51 not in Interval(0.0, 0.5)


def test_percentiles_of_durations():
    summary = Percentiles.of([0.01 * i for i in range(1, 101)])
    assert summary is not None
    assert (summary.count, summary.largest) == (100, 1.0)
    assert summary.p50 == pytest.approx(0.505)
    assert summary.p95 == pytest.approx(0.9505)
    assert Percentiles.of([]) is None
