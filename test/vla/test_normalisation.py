# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.normalisation import (
    Normaliser,
    libero_gripper,
    read_statistics,
    select_statistics,
)
from hbvla_ros.vla.platform import ALOHA

PLATFORM = dataclasses.replace(ALOHA, action_dim=3, proprio_dim=2, normalisation='bounds_q99')
STATISTICS = {
    'mine_no_noops': {
        'action': {
            'min': [-9.0, -9.0, -9.0], 'max': [9.0, 9.0, 9.0],
            'q01': [-2.0, 5.0, 0.0], 'q99': [4.0, 5.0, 1.0], 'mask': [True, True, False],
        },
        'proprio': {'min': [0.0, 0.0], 'max': [10.0, 10.0], 'q01': [0.0, -1.0],
                    'q99': [4.0, 1.0]},
    }
}  # fmt: skip


def test_actions_by_hand():
    """Span 6 from -2; a constant value; a masked value that passes unchanged. No clipping."""
    normaliser = Normaliser(STATISTICS, PLATFORM)
    actual = normaliser.actions([[0.0, 0.3, 0.25], [2.0, -1.0, 1.5]])
    np.testing.assert_allclose(actual, [[1.0, 5.0, 0.25], [7.0, 5.0, 1.5]], atol=1e-7)
    assert actual.dtype == np.float64


def test_bounds_use_minimum_and_maximum():
    platform = dataclasses.replace(PLATFORM, normalisation='bounds')
    actual = Normaliser(STATISTICS, platform).actions([0.5, -1.0, 0.5])
    np.testing.assert_allclose(actual, [4.5, -9.0, 0.5], atol=1e-7)


def test_proprio_by_hand_is_clipped():
    normaliser = Normaliser(STATISTICS, PLATFORM)
    np.testing.assert_allclose(normaliser.proprio([1.0, 0.5]), [-0.5, 0.5], atol=1e-7)
    np.testing.assert_array_equal(normaliser.proprio([99.0, -99.0]), [1.0, -1.0])


def test_input_is_not_changed():
    values = np.array([1.0, 99.0])
    Normaliser(STATISTICS, PLATFORM).proprio(values)
    np.testing.assert_array_equal(values, [1.0, 99.0])


def test_training_labels_invert_the_actions():
    normaliser = Normaliser(STATISTICS, PLATFORM)
    raw = np.array([[1.0, 5.0, 0.25], [-2.0, 5.0, 1.0]])
    labels = normaliser.normalise_actions(raw)
    np.testing.assert_allclose(labels, [[0.0, 0.0, 0.25], [-1.0, 0.0, 1.0]], atol=1e-7)
    np.testing.assert_allclose(normaliser.actions(labels), raw, atol=1e-7)
    np.testing.assert_allclose(
        normaliser.normalise_actions([99.0, 5.0, 7.0]), [1.0, 0.0, 7.0], atol=1e-7
    )


def test_libero_gripper_by_hand():
    actions = np.array([[9.0, 0.0], [9.0, 0.4], [9.0, 0.6], [9.0, 1.0]])
    # 0 is closed and becomes +1 (close), 1 is open and becomes -1 (open).
    np.testing.assert_array_equal(libero_gripper(actions)[:, 1], [1, 1, -1, -1])
    np.testing.assert_array_equal(libero_gripper(actions)[:, 0], 9.0)
    np.testing.assert_array_equal(actions[:, 1], [0.0, 0.4, 0.6, 1.0])


def test_gripper_rule_is_the_platforms():
    values = [0.0, 0.0, 0.9]
    assert Normaliser(STATISTICS, PLATFORM).robot_actions(values)[-1] == 0.9
    libero = dataclasses.replace(PLATFORM, gripper='libero')
    assert Normaliser(STATISTICS, libero).robot_actions(values)[-1] == -1


def test_selection_of_a_dataset():
    statistics = {'a': {'n': 1}, 'b_no_noops': {'n': 2}}
    assert select_statistics(statistics, 'a') == {'n': 1}
    assert select_statistics(statistics, 'b') == {'n': 2}
    assert select_statistics({'a': {'n': 1}}, None) == {'n': 1}
    with pytest.raises(HbvlaError, match='several keys; name one in statistics_key: a, b_no_noops'):
        select_statistics(statistics, None)
    with pytest.raises(HbvlaError, match="unknown statistics key 'c'.*a, b_no_noops"):
        select_statistics(statistics, 'c')


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda v: v.pop('action'), "no 'action' part"),
        (lambda v: v.pop('proprio'), "no 'proprio' part"),
        (lambda v: v['action'].pop('q99'), "action has no 'q99'"),
        (lambda v: v['action'].update(q01=[0.0] * 7), 'action has 7 values, the platform 3'),
        (lambda v: v['action'].update(mask=[True]), 'action has 1 values, the platform 3'),
    ],
)
def test_wrong_statistics(change, words):
    values = json.loads(json.dumps(STATISTICS))
    change(values['mine_no_noops'])
    with pytest.raises(HbvlaError, match=words):
        Normaliser(values, PLATFORM)


def test_no_proprioception():
    platform = dataclasses.replace(PLATFORM, proprio_dim=0)
    values = json.loads(json.dumps(STATISTICS))
    del values['mine_no_noops']['proprio']
    with pytest.raises(HbvlaError, match='takes no proprioception'):
        Normaliser(values, platform).proprio([1.0])


@pytest.mark.parametrize('text', ['{', '[]', '{}'])
def test_unreadable_statistics(tmp_path, text):
    (tmp_path / 'dataset_statistics.json').write_text(text)
    with pytest.raises(HbvlaError, match=r'dataset_statistics\.json'):
        read_statistics(tmp_path)
