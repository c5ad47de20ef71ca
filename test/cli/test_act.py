# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from hbvla_ros.cli import act
from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.policy import Policy


@pytest.fixture
def observation_file(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        name: random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        for name in ('cam_high', 'cam_low')
    }
    path = tmp_path / 'observation.npz'
    np.savez(path, proprioception=np.linspace(-1, 1, 14), instruction='put cube', **arrays)
    return path


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    act.add_parser(parser.add_subparsers())
    options = parser.parse_args(['act', *map(str, arguments)])
    return options.run(options)


def test_json_is_the_policys_chunk(tiny_checkpoint, observation_file, capsys):
    assert run(tiny_checkpoint, '--observation', observation_file, '--json') == 0
    printed = json.loads(capsys.readouterr().out)
    with np.load(observation_file) as content:
        images = {name: content[name] for name in ('cam_high', 'cam_low')}
        seen = Observation(images, content['proprioception'], 'put cube', 0.0)
    chunk = Policy.load(tiny_checkpoint).act(seen)
    np.testing.assert_allclose(printed['actions'], chunk.actions)
    assert printed['checkpoint'] == chunk.checkpoint and printed['step'] == 0.04
    assert printed['instruction'] == 'put cube' and printed['platform'] == 'tiny'


def test_text_has_one_line_a_row(tiny_checkpoint, observation_file, capsys):
    run(tiny_checkpoint, '--observation', observation_file, '--instruction', 'put red cube')
    lines = capsys.readouterr().out.splitlines()
    assert 'put red cube' in lines[1]
    assert '3 rows of 14 values' in lines[2]
    rows = [line.split() for line in lines[5:]]
    assert [row[0] for row in rows] == ['0.000', '0.040', '0.080']
    assert all(len(row) == 15 for row in rows)


def test_instruction_on_the_command_line_wins(tiny_checkpoint, observation_file, capsys):
    printed = []
    for words in ('put cube', 'put red cube'):
        run(tiny_checkpoint, '--observation', observation_file, '--instruction', words, '--json')
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0]['actions'] != printed[1]['actions']
    assert printed[1]['instruction'] == 'put red cube'


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda a: a.pop('cam_low'), 'takes 2 cameras .*got 1'),
        (lambda a: a.pop('proprioception'), r'needs 14 values, got shape \(0,\)'),
        (lambda a: a.pop('instruction'), 'has no instruction; give one with --instruction'),
        (lambda a: a.update(proprioception=np.array(['x'])), 'must be numbers'),
        (lambda a: a.update(cam_low=np.zeros((4, 4))), "camera 'cam_low': need uint8"),
        (lambda a: a.update(cam_low=np.array([None])), 'not a readable npz'),
    ],
)
def test_wrong_observation(tiny_checkpoint, observation_file, change, words):
    with np.load(observation_file) as content:
        arrays = dict(content)
    change(arrays)
    np.savez(observation_file, **arrays)
    with pytest.raises(HbvlaError, match=words):
        run(tiny_checkpoint, '--observation', observation_file)


@pytest.mark.parametrize('content', [b'', b'not a zip', b'PK\x03\x04 broken'])
def test_file_that_is_no_npz(tiny_checkpoint, tmp_path, content):
    path = tmp_path / 'broken.npz'
    path.write_bytes(content)
    with pytest.raises(HbvlaError, match=r'broken\.npz: not a readable npz'):
        run(tiny_checkpoint, '--observation', path)


def test_single_array_is_no_observation(tiny_checkpoint, tmp_path):
    np.save(tmp_path / 'array.npy', np.zeros(3))
    with pytest.raises(HbvlaError, match='not a readable npz'):
        run(tiny_checkpoint, '--observation', tmp_path / 'array.npy')


def test_no_file_and_no_platform(tiny_checkpoint, observation_file, tmp_path):
    with pytest.raises(HbvlaError, match='no such observation file'):
        run(tiny_checkpoint, '--observation', tmp_path / 'absent.npz')
    with pytest.raises(HbvlaError, match="unknown platform 'alhoa'"):
        run(tiny_checkpoint, '--observation', observation_file, '--platform', 'alhoa')


def test_device(tiny_checkpoint, observation_file, capsys):
    arguments = (tiny_checkpoint, '--observation', observation_file, '--json', '--device')
    assert run(*arguments, 'cpu:0') == 0
    assert json.loads(capsys.readouterr().out)['platform'] == 'tiny'
    for device in ('cuda:99', 'toaster'):
        with pytest.raises(HbvlaError, match=f'device {device}: not available here .*; use cpu$'):
            run(*arguments, device)
