# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.action_error import (
    JOINTS,
    ErrorSums,
    check_comparable,
    compare_episode,
)
from hbvla_ros.policy import Policy
from hbvla_ros.sim.simulation import AlohaSimulation

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 4,
}
STAGES = ('nothing', 'touched', 'lifted')


def sums(stages: list[int], found: np.ndarray, wanted: np.ndarray) -> ErrorSums:
    return ErrorSums.of(stages, len(STAGES), found, wanted)


def test_errors_are_those_of_the_arrays():
    random = np.random.default_rng(2)
    wanted, noise = random.normal(size=(2, 40, 4, 14))
    stages = list(random.integers(0, 2, 40))
    noise *= np.arange(1, 5)[:, None] * np.arange(1, 15)
    report = sums(stages, wanted + noise, wanted).report(STAGES)
    spread = np.sqrt(((wanted - wanted.mean(axis=0)) ** 2).mean())
    assert report['frames'] == 40
    assert report['rms'] == pytest.approx(np.sqrt((noise**2).mean()))
    assert report['relative_rms'] == pytest.approx(report['rms'] / spread)
    rows = np.sqrt((noise**2).mean(axis=(0, 2))) / spread
    assert report['by_row'] == pytest.approx(rows)
    centred = wanted - wanted.mean(axis=0)
    joints = np.sqrt((noise**2).mean(axis=(0, 1)) / (centred**2).mean(axis=(0, 1)))
    assert list(report['by_joint']) == list(JOINTS)
    assert list(report['by_joint'].values()) == pytest.approx(joints)
    for index, name in enumerate(STAGES[:2]):
        mine = noise[np.array(stages) == index]
        assert report['by_stage'][name] == {
            'frames': len(mine),
            'relative_rms': pytest.approx(np.sqrt((mine**2).mean()) / spread),
        }
    assert report['by_stage']['lifted'] == {'frames': 0, 'relative_rms': None}


def test_parts_add_up_to_the_whole_and_survive_a_file():
    random = np.random.default_rng(3)
    wanted, found = random.normal(size=(2, 12, 4, 14))
    stages = [0, 1, 2] * 4
    whole = sums(stages, found, wanted)
    parts = sums(stages[:5], found[:5], wanted[:5]) + sums(stages[5:], found[5:], wanted[5:])
    again = ErrorSums.from_json(json.loads(json.dumps(parts.to_json())))
    report, expected = again.report(STAGES), whole.report(STAGES)
    assert report['by_row'] == pytest.approx(expected['by_row'])
    assert report['relative_rms'] == pytest.approx(expected['relative_rms'])
    merged = whole.without_stages().report()
    assert merged['relative_rms'] == pytest.approx(expected['relative_rms'])
    assert 'by_stage' not in merged


def test_a_policy_that_never_moves_has_no_relative_error():
    still = np.zeros((3, 4, 14))
    report = sums([0, 0, 0], still + 0.1, still).report(STAGES)
    assert report['rms'] == pytest.approx(0.1)
    assert report['relative_rms'] is None and report['by_row'] == [None] * 4
    assert json.loads(json.dumps(report)) == report


@pytest.fixture
def policy(make_tiny_checkpoint) -> Policy:
    return Policy.load(make_tiny_checkpoint(platform=SIMULATED))


def test_along_the_reference_the_same_network_makes_no_error(policy):
    simulation = AlohaSimulation(64)
    found = compare_episode(policy, policy, simulation, 3_000_002, 2, 10, 'pick_place')
    simulation.close()
    # Ten steps in chunks of which two rows are executed.
    assert found.frames.sum() == 5 and found.frames[0] >= 1
    assert not found.squared.any()
    assert found.wanted_squared.any()


def test_the_reference_drives_and_the_other_is_judged(policy, make_tiny_checkpoint):
    other = Policy.load(make_tiny_checkpoint('other', platform=SIMULATED))
    with torch.no_grad():
        # The same normalised offset for every row and joint of the other's chunks.
        _last_bias(other).add_(0.25)
    simulation = AlohaSimulation(64)
    found = compare_episode(other, policy, simulation, 3_000_002, 2, 10, 'pick_place')
    alone = compare_episode(policy, policy, simulation, 3_000_002, 2, 10, 'pick_place')
    simulation.close()
    assert np.array_equal(found.wanted, alone.wanted)
    assert found.report()['rms'] == pytest.approx(0.25, rel=1e-4)


def _last_bias(policy: Policy) -> torch.Tensor:
    biases = [
        value for name, value in policy.network.action_head.named_parameters() if 'bias' in name
    ]
    return biases[-1]


def test_a_reference_of_another_kind_is_refused(policy):
    platform = policy.platform
    check_comparable(platform, platform, ('mine', 'its'))
    other = dataclasses.replace(platform, chunk=25)
    with pytest.raises(HbvlaError, match='reference its: chunk 25, that of mine is 4'):
        check_comparable(platform, other, ('mine', 'its'))
