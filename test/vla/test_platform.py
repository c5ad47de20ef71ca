# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.platform import ALOHA, BRIDGE, LIBERO, Platform, resolve_platform


def test_constants_of_the_reference():
    table = [(p.chunk, p.action_dim, p.proprio_dim, p.normalisation) for p in
             (LIBERO, ALOHA, BRIDGE)]  # fmt: skip
    assert table == [
        (8, 7, 8, 'bounds_q99'),
        (25, 14, 14, 'bounds'),
        (5, 7, 7, 'bounds_q99'),
    ]
    assert ALOHA.action_slots == 350 and LIBERO.action_slots == 56
    assert LIBERO.rotate_180 and LIBERO.gripper == 'libero'
    assert ALOHA.resize == (256, 256) and not ALOHA.rotate_180


def test_slots_per_step_may_be_fewer_than_action_values():
    platform = dataclasses.replace(ALOHA, chunk=10, action_slots_per_step=2)
    assert platform.action_slots == 20


@pytest.mark.parametrize('platform', [ALOHA, LIBERO, BRIDGE], ids=lambda p: p.name)
def test_file_round_trip(tmp_path, platform):
    platform.write(tmp_path / 'platform.json')
    assert Platform.read(tmp_path / 'platform.json') == platform
    assert [path.name for path in tmp_path.iterdir()] == ['platform.json']


@pytest.mark.parametrize(
    'change, words',
    [
        ({'chunks': 3}, ["unknown key 'chunks'", 'chunk']),
        ({'chunk': 0}, ['chunk must be']),
        ({'chunk': 2.5}, ['chunk must be']),
        ({'chunk': True}, ['chunk must be']),
        ({'step': 0}, ['step must be']),
        ({'step': float('nan')}, ['step must be']),
        ({'proprio_dim': -1}, ['proprio_dim']),
        ({'cameras': []}, ['cameras']),
        ({'cameras': 'cam_high'}, ['cameras must be a list']),
        ({'cameras': None}, ['cameras']),
        ({'cameras': ['a', 'a']}, ['cameras']),
        ({'normalisation': 'q99'}, ['normalisation', 'bounds or bounds_q99']),
        ({'gripper': 'binary'}, ['gripper', 'continuous or libero']),
        ({'resize': [256]}, ['resize']),
        ({'rotate_180': 1}, ['rotate_180']),
        ({'robot': ''}, ['robot']),
        ({'action_slots_per_step': 0}, ['action_slots_per_step']),
        ({'statistics_key': 3}, ['statistics_key']),
        ({'diffusion_steps_inference': 51}, ['diffusion_steps_inference']),
    ],
)
def test_wrong_value_names_file_and_key(tmp_path, change, words):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps({**ALOHA.to_json(), **change}))
    with pytest.raises(HbvlaError) as raised:
        Platform.read(path)
    assert all(word in str(raised.value) for word in ['mine.json', *words]), raised.value


def test_missing_key(tmp_path):
    values = ALOHA.to_json()
    del values['step']
    (tmp_path / 'mine.json').write_text(json.dumps(values))
    with pytest.raises(HbvlaError, match="missing key 'step'"):
        Platform.read(tmp_path / 'mine.json')


@pytest.mark.parametrize('text', ['{', '[]', ''])
def test_unreadable_file(tmp_path, text):
    (tmp_path / 'mine.json').write_text(text)
    with pytest.raises(HbvlaError, match='mine.json'):
        Platform.read(tmp_path / 'mine.json')


def test_resolution_prefers_the_choice_then_the_folder(tmp_path):
    with pytest.raises(HbvlaError, match='no platform.json; name the platform'):
        resolve_platform(tmp_path)
    dataclasses.replace(ALOHA, chunk=9).write(tmp_path / 'platform.json')
    assert resolve_platform(tmp_path).chunk == 9
    assert resolve_platform(tmp_path, 'libero') is LIBERO
    assert resolve_platform(tmp_path, tmp_path / 'platform.json').chunk == 9
    with pytest.raises(HbvlaError, match="unknown platform 'alhoa'"):
        resolve_platform(tmp_path, 'alhoa')
