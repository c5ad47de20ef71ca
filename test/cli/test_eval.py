# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.evaluation import closed_loop

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}


@pytest.fixture
def short_episodes(monkeypatch):
    """Twenty steps an episode: random weights need no longer to fail."""
    whole = closed_loop.evaluate

    def evaluate(*arguments, **options):
        return whole(*arguments, **{**options, 'max_steps': 20})

    monkeypatch.setattr(closed_loop, 'evaluate', evaluate)


def test_json_has_rate_interval_seeds_and_versions(
    make_tiny_checkpoint, tmp_path, capsys, short_episodes
):
    checkpoint, out = (
        make_tiny_checkpoint('random', platform=SIMULATED),
        tmp_path / 'new' / 'e.json',
    )
    arguments = ['eval', str(checkpoint), '--episodes', '3', '--seed', '20']
    assert main([*arguments, '--parallel', '2', '--json', '--out', str(out)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result == json.loads(out.read_text())
    assert (result['success_rate'], result['episodes']) == (0.0, 3)
    assert result['interval'] == pytest.approx([0.0, 0.5615], abs=1e-4)
    assert result['seeds'] == [3_000_020, 3_000_021, 3_000_022]
    assert result['settings']['max_steps'] == 20 and result['settings']['parallel'] == 2
    assert result['checkpoint'].startswith('random@') and result['versions']['torch']
    assert 'seed 3000021' in captured.err


def test_plain_output_is_the_phrase_with_the_interval(make_tiny_checkpoint, capsys, short_episodes):
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    assert main(['eval', str(checkpoint), '--episodes', '1']) == 0
    assert capsys.readouterr().out.startswith('success  0/1 = 0 % (0 to 79 %)\n')


def test_an_adapter_runs_on_its_base(make_tiny_checkpoint, tiny_adapter, capsys, short_episodes):
    base = make_tiny_checkpoint(platform=SIMULATED)
    arguments = ['eval', str(tiny_adapter(base)), '--episodes', '1', '--device', 'cpu']
    assert main([*arguments, '--base', str(base)]) == 0
    assert capsys.readouterr().out.startswith('success  0/1')


def test_a_result_that_has_no_place_is_refused_before_the_episodes(
    make_tiny_checkpoint, tmp_path, capsys, monkeypatch
):
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    ran = []
    monkeypatch.setattr(closed_loop, 'evaluate', lambda *_, **__: ran.append(1))
    for out in (tmp_path, checkpoint / 'config.json' / 'result.json'):
        assert main(['eval', str(checkpoint), '--episodes', '1', '--out', str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'hbvla: error: {out}: ') and error.count('\n') == 1
    assert not ran


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--seed', '-1'], 'seed -1: belongs to other, not evaluation'),
        (['--device', 'cuda:99'], 'device cuda:99: not available here'),
        (['--device', 'toaster'], 'device toaster: not available here'),
        (['--ros', '--parallel', '8'], '--parallel: not with --ros'),
        (['--ros', '--device', 'cpu'], '--device: not with --ros'),
        (['--ros', '--base', 'folder'], '--base: not with --ros'),
        (['--seed', '1000000'], 'seed 1000000: belongs to demos, not evaluation'),
        (['--task', 'fold'], "task 'fold': unknown"),
        (['--episodes', '0'], '0 episodes'),
        (['--platform', 'libero'], "but platform 'libero' has 8"),
    ],
)
def test_bad_input_is_one_line(make_tiny_checkpoint, capsys, arguments, message):
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    assert main(['eval', str(checkpoint), *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('hbvla: error: ') and message in lines[-1]
