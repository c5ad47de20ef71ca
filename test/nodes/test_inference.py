# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the policy node's parameters become, and which checkpoints fit which robot."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hbvla_ros.control.inference import check_chunk
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.inference import check_policy, load_policy
from hbvla_ros.nodes.policy_parameters import TABLE
from hbvla_ros.packed.linear import RESIDENCIES
from hbvla_ros.vla.platform import ALOHA

VALUES = {parameter.name: parameter.default for parameter in TABLE}


def test_network_computes_in_the_type_of_its_device(tiny_checkpoint, monkeypatch):
    values = {**VALUES, 'checkpoint': str(tiny_checkpoint)}
    assert load_policy(values).network.projector.fc1.weight.dtype == torch.float32
    # A GPU may be missing here, so what would be loaded for it is looked at, not run.
    loaded = {}
    monkeypatch.setattr(
        'hbvla_ros.policy.Policy.load', lambda folder, **given: loaded.update(given)
    )
    load_policy({**values, 'device': 'cuda:0'})
    assert loaded['dtype'] == torch.bfloat16 and loaded['device'] == 'cuda:0'


def test_device_that_is_not_there_is_one_line(tiny_checkpoint):
    with pytest.raises(HbvlaError, match='device gpu: not available here') as error:
        load_policy({**VALUES, 'checkpoint': str(tiny_checkpoint), 'device': 'gpu'})
    assert '\n' not in str(error.value)


def test_residencies_are_those_there_are():
    parameter = next(parameter for parameter in TABLE if parameter.name == 'residency')
    assert set(parameter.choices) == set(RESIDENCIES)


def test_a_checkpoint_of_the_original_platform_is_told_what_to_do(profile):
    with pytest.raises(HbvlaError) as error:
        check_policy(SimpleNamespace(platform=ALOHA, checkpoint='aloha-1'), profile)
    text = str(error.value)
    assert "is for robot 'aloha', the profile aloha_sim is 'aloha_sim'" in text
    assert 'platform file with "robot": "aloha_sim"' in text and 'docs/robots.md' in text
    assert '\n' not in text


@pytest.mark.parametrize('step, fits', [(0.02, False), (0.0395, True), (0.04, True), (0.2, True)])
def test_rows_may_not_come_faster_than_commands(profile, step, fits):
    platform = dataclasses.replace(ALOHA, robot='aloha_sim', step=step)
    policy = SimpleNamespace(platform=platform, checkpoint='x')
    if fits:
        assert len(check_policy(policy, profile)) == 3
    else:
        with pytest.raises(HbvlaError, match='a row every 0.02 s, the profile aloha_sim commands'):
            check_policy(policy, profile)


def chunk_of(rows):
    return ActionChunk(np.asarray(rows), 1.0, 0.04, 1.0, 'go', 'x')


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_chunk_with_one_number_that_is_not_finite_is_refused_whole(profile, value):
    rows = np.zeros((10, 14))
    check_chunk(chunk_of(rows), profile)
    rows[4, 8] = value
    with pytest.raises(
        HbvlaError, match=f'returned {value} for right_shoulder in row 4; the whole'
    ):
        check_chunk(chunk_of(rows), profile)


@pytest.mark.parametrize('shape', [(14,), (10, 7), (1, 14), (0, 14), (2, 3, 14)])
def test_a_chunk_of_another_shape_is_refused(profile, shape):
    with pytest.raises(HbvlaError, match='not \\(2 or more, 14\\)'):
        check_chunk(chunk_of(np.zeros(shape)), profile)
