# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla soak`` with real processes, as short as it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.evaluation.soak import FAULTS
from hbvla_ros.nodes.faults.kinds import KINDS


def test_a_short_soak_has_no_failures(tmp_path):
    out = tmp_path / 'soak.json'
    command = [sys.executable, '-m', 'hbvla_ros.cli.main', 'soak', '--minutes', '0.3', '--seed']
    command += ['3', '--time-scale', '2', '--fault', 'NaN action', '--fault', 'wrong joint names']
    done = subprocess.run(
        [*command, '--out', str(out)],
        capture_output=True,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(out.read_text(encoding='utf-8'))
    assert content['failures'] == [] and content['summary']['violations'] == 0
    assert content['summary']['seconds'] >= 18.0
    assert sum(one['count'] for one in content['faults'].values()) >= 1
    assert all(one['commands'] > 100 for one in content['summary']['wire'])
    names = {one['name'] for one in content['summary']['memory']}
    assert {'arm_node', 'guard_node', 'policy_node', 'faulty_robot', 'soak'} <= names
    assert 'No failures.' in out.with_suffix('.md').read_text(encoding='utf-8')


def test_the_command_knows_every_fault():
    assert set(FAULTS) == set(KINDS)


@pytest.mark.parametrize(
    'arguments, named',
    [
        (['--out', 'a.txt'], '--out a.txt: must end in .json'),
        (['--out', '/nowhere/a.json'], 'there is no folder /nowhere'),
        (['--out', 'a.json', '--minutes', '-1'], '--minutes -1'),
        (['--out', 'a.json', '--fault', 'rain'], "--fault 'rain': no such fault"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['soak', *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count('\n') == 1
