# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import seeds


def test_ranges_are_disjoint():
    for (first, one), (second, other) in itertools.combinations(seeds.RANGES.items(), 2):
        seeds.check_disjoint(one, other, (first, second))


def test_seed_range_lies_in_its_range():
    got = seeds.seed_range('evaluation', 5, offset=2)
    assert list(got) == [3_000_002, 3_000_003, 3_000_004, 3_000_005, 3_000_006]
    assert all(seeds.purpose_of(seed) == 'evaluation' for seed in got)


def test_overlap_is_refused_and_names_the_seed():
    with pytest.raises(HbvlaError, match='seed 7: in both training and evaluation'):
        seeds.check_disjoint([1, 7, 9], range(7, 9), ('training', 'evaluation'))


@pytest.mark.parametrize('purpose', ['demos', 'validation'])
def test_training_seeds_are_refused_for_evaluation(purpose):
    with pytest.raises(HbvlaError, match=f'belongs to {purpose}, not evaluation'):
        seeds.check_purpose(seeds.seed_range(purpose, 1), 'evaluation')


def test_seed_outside_every_range_is_refused():
    with pytest.raises(HbvlaError, match='seed 3: belongs to other'):
        seeds.check_purpose([3], 'demos')


@pytest.mark.parametrize('count, offset', [(100_001, 0), (1, 100_000), (-1, 0), (1, -1)])
def test_range_that_does_not_fit_is_refused(count, offset):
    with pytest.raises(HbvlaError, match='do not fit'):
        seeds.seed_range('evaluation', count, offset)


def test_unknown_purpose_is_refused():
    with pytest.raises(HbvlaError, match='must be one of'):
        seeds.seed_range('training', 1)
