# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.paired import Pairs, kept_success, mcnemar_exact, newcombe_interval

COUNTS = st.integers(0, 60)
PAIRS = st.builds(Pairs, COUNTS, COUNTS, COUNTS, COUNTS).filter(lambda pairs: pairs.episodes)

# (b, c, p): worked out by hand as 2 * sum of binomial coefficients / 2^(b + c).
EXACT = [
    (0, 0, 1.0),
    (1, 0, 1.0),
    (0, 5, 2 / 32),
    (1, 7, 2 * (1 + 8) / 256),
    (0, 6, 2 / 64),
    (2, 10, 2 * (1 + 12 + 66) / 4096),
    (4, 4, 1.0),
]


@pytest.mark.parametrize(('only_first', 'only_second', 'p_value'), EXACT)
def test_mcnemar_has_the_hand_worked_values(only_first, only_second, p_value):
    assert mcnemar_exact(only_first, only_second) == pytest.approx(p_value, abs=1e-15)
    assert mcnemar_exact(only_second, only_first) == pytest.approx(p_value, abs=1e-15)


def test_mcnemar_holds_its_level():
    """Under equal rates p <= 0.05 comes up in at most 5 % of all splits, for each number."""
    for differing in range(1, 40):
        chance = sum(
            math.comb(differing, k) / 2**differing
            for k in range(differing + 1)
            if mcnemar_exact(k, differing - k) <= 0.05
        )
        assert chance <= 0.05


def test_mcnemar_stays_exact_where_floats_run_out():
    assert 0 < mcnemar_exact(0, 1000) < 1e-300
    assert mcnemar_exact(2000, 2000) == 1.0
    with pytest.raises(HbvlaError, match='not negative'):
        mcnemar_exact(-1, 2)


def test_newcombe_interval_of_the_published_example():
    """Airway hyper-responsiveness of 21 children (Fagerland and others 2014): -0.507 to -0.026."""
    interval = newcombe_interval(Pairs(1, 1, 7, 12))
    assert interval.low == pytest.approx(-0.507, abs=5e-4)
    assert interval.high == pytest.approx(-0.026, abs=5e-4)


@given(PAIRS)
def test_the_interval_holds_the_difference_and_mirrors(pairs):
    interval = pairs.interval
    assert -1 <= interval.low <= pairs.difference <= interval.high <= 1
    swapped = Pairs(pairs.both, pairs.only_second, pairs.only_first, pairs.neither)
    assert swapped.difference == -pairs.difference and swapped.p_value == pairs.p_value
    assert swapped.interval.low == pytest.approx(-interval.high, abs=1e-12)
    assert newcombe_interval(pairs, 0.99).low <= interval.low


def test_the_interval_covers_the_true_difference():
    """Of 1,000 draws of 60 pairs at least 93 % of the intervals hold it."""
    random = np.random.default_rng(0)
    chances = [0.55, 0.05, 0.25, 0.15]
    draws = random.multinomial(60, chances, 1000)
    covered = [-0.2 in Pairs(*map(int, draw)).interval for draw in draws]
    assert np.mean(covered) >= 0.93


def test_outcomes_are_paired_by_seed():
    pairs = Pairs.of({1: True, 2: True, 3: False, 4: False}, {4: False, 3: True, 2: False, 1: True})
    assert pairs == Pairs(1, 1, 1, 1)
    report = pairs.to_json()
    assert (report['difference'], report['p_value'], report['episodes']) == (0.0, 1.0, 4)
    with pytest.raises(HbvlaError, match='2 of 3 seeds were run by one of the two only'):
        Pairs.of({1: True, 2: True}, {2: True, 3: False})
    with pytest.raises(HbvlaError, match='same seeds'):
        Pairs.of({}, {})


@pytest.mark.parametrize(
    'cells', [(120, 2, 20, 58), (60, 20, 15, 5), (30, 10, 40, 120), (150, 5, 5, 40)]
)
def test_the_kept_share_has_the_interval_of_a_paired_bootstrap(cells):
    pairs = Pairs(*cells)
    kept = kept_success(pairs)
    assert kept is not None
    assert kept.share == pytest.approx((cells[0] + cells[1]) / (cells[0] + cells[2]))
    random, n = np.random.default_rng(1), sum(cells)
    draws = random.multinomial(n, np.array(cells) / n, 20_000)
    shares = (draws[:, 0] + draws[:, 1]) / (draws[:, 0] + draws[:, 2])
    low, high = np.percentile(shares, [2.5, 97.5])
    # An asymptotic and a resampled interval of a few hundred pairs: alike to a tenth of the width.
    width = high - low
    assert kept.interval.low == pytest.approx(low, abs=0.12 * width)
    assert kept.interval.high == pytest.approx(high, abs=0.12 * width)


def test_what_was_never_seen_is_not_said_to_be_nothing():
    never = kept_success(Pairs(0, 0, 8, 2))
    assert never is not None and never.share == 0.0
    assert never.interval.low == 0.0 and 0.2 < never.interval.high < 0.6
    always = kept_success(Pairs(10, 0, 0, 0))
    assert always is not None and 0.6 < always.interval.low < 1.0 < always.interval.high
    assert kept_success(Pairs(0, 3, 0, 5)) is None


@given(PAIRS)
def test_the_kept_interval_holds_the_share(pairs):
    kept = kept_success(pairs)
    if kept is not None:
        assert 0.0 <= kept.interval.low <= kept.share <= kept.interval.high
