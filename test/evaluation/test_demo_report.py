# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from hbvla_ros.evaluation.demo_report import Condition, content, film
from hbvla_ros.evaluation.episode import EpisodeResult, Evaluation, Trace
from hbvla_ros.sim.simulation import AlohaSimulation

SETTINGS = {
    'where': 'over ROS 2', 'max_seconds': 16.0, 'real_time_factor': 1.0, 'trace_rate_hz': 50.0,
    'achieved_real_time_factor': 0.98, 'settle_seconds': 0.2,
}  # fmt: skip


def resting(seed: int, success: bool) -> EpisodeResult:
    """An episode in which the arms stayed where they start; ``success`` is what it claims."""
    simulation = AlohaSimulation(32, 50.0)
    simulation.reset(seed)
    pose = np.tile(simulation.joint_positions(), (12, 1))
    trace = Trace(np.arange(12) / 50, pose, pose)
    return EpisodeResult(seed, simulation.instruction, success, 0, 0.24, 2, (0.05, 0.06), trace)


def condition(name: str, outcomes: list[bool], pace: float = 0.98, **size: object) -> Condition:
    episodes = [resting(3_000_010 + index, success) for index, success in enumerate(outcomes)]
    settings = {**SETTINGS, 'achieved_real_time_factor': pace}
    over_ros = Evaluation(name, 'pick_place', episodes, settings)
    sizes = {'name': name, 'driven': True, 'stored_bits_per_weight': 1.1, **size}
    return Condition(name, sizes, over_ros, dataclasses.replace(over_ros, settings={}))


@pytest.fixture(scope='module')
def pair() -> list[Condition]:
    return [condition('Full precision', [False, True]), condition('1 bit', [False, False])]


def test_the_film_shows_a_seed_that_the_first_condition_mastered(pair):
    films = film(pair, size=(60, 80))
    assert [one.episode.seed for one in films] == [3_000_011, 3_000_011]
    # Resting arms put nothing into the bucket: the claimed success is not repeated, and is told.
    assert [one.faithful for one in films] == [False, True]
    report = content(pair, [one.size for one in pair], films, 'hbvla demo', quick=False)
    assert report['film'] == {'seed': 3_000_011, 'replay_ended_alike': [False, True]}
    assert json.loads(json.dumps(report)) == report


def test_readers_are_told_what_weakens_the_numbers(pair):
    films = film(pair, size=(60, 80))

    def notices(conditions, quick=False):
        return content(conditions, [], films, '', quick)['notices']

    assert notices(pair) == []
    assert 'Quick form: 2 episodes' in notices(pair, quick=True)[0]
    slow = [pair[0], condition('1 bit', [True], pace=0.6)]
    assert 'simulated at 0.60 of the pace' in notices(slow)[0]
    assert 'never succeeded here' in notices([pair[1], pair[0]])[0]


def test_the_method_says_what_was_calibrated_on(pair):
    films = film(pair, size=(60, 80))
    sizes = [dict(pair[1].size, calibration={'frames': 48, 'episodes': 4})]
    assert 'calibrated' not in content(pair, [pair[0].size], films, '', True)['method']
    plain = content(pair, sizes, films, '', True)['method']
    assert 'calibrated on 48 frames of 4' in plain and 'refined' not in plain
    sizes = [dict(sizes[0], refinement={'steps': 20})]
    refined = content(pair, sizes, films, '', True)['method']
    assert 'then refined in 20 gradient steps' in refined
