# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla eval --suite libero`` with a stand-in for LIBERO: output, resumption, bad input."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.vla.platform import ALOHA, LIBERO

# torch says that it does what it was told to, once a file of initial states.
pytestmark = pytest.mark.filterwarnings('ignore:Environment variable TORCH_FORCE')


@pytest.fixture
def checkpoint(make_tiny_checkpoint):
    """A folder of random weights as for LIBERO-Spatial."""
    changes = {key: value for key, value in dataclasses.asdict(LIBERO).items()
               if value != getattr(ALOHA, key)}  # fmt: skip
    folder = make_tiny_checkpoint(platform={**changes, 'chunk': 3, 'normalisation': 'bounds_q99'})
    ranges = {'q01': [-1.0] * 8, 'q99': [1.0] * 8}
    action = {key: values[:7] for key, values in ranges.items()} | {'mask': [True] * 6 + [False]}
    content = {'libero_spatial_no_noops': {'action': action, 'proprio': ranges}}
    (folder / 'dataset_statistics.json').write_text(json.dumps(content))
    return folder


def test_the_command_prints_json_that_libero_does_not_spoil(stand_in, checkpoint, tmp_path, capsys):
    stand_in.done_after, out = 14, tmp_path / 'new' / 'result.json'
    arguments = ['eval', str(checkpoint), '--suite', 'libero', '--episodes', '2', '--json']
    assert main([*arguments, '--out', str(out)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result == json.loads(out.read_text())
    assert (result['success_rate'], result['episodes'], result['task']) == (
        1.0,
        6,
        'libero_spatial',
    )
    assert result['settings']['statistics_key'] == 'libero_spatial_no_noops'
    assert (result['settings']['seed'], result['settings']['execute']) == (7, 3)
    assert '[info] using task orders' in captured.err and result['versions']['torch']


def test_a_stopped_command_goes_on_with_the_same_result(
    stand_in, checkpoint, tmp_path, capsys, monkeypatch
):
    out, stand_in.done_after = tmp_path / 'a.json', 15
    arguments = ['eval', str(checkpoint), '--suite', 'libero', '--episodes', '3', '--out', str(out)]
    stand_in.breaks_in = 5
    assert main(arguments) == 2
    assert 'task_1, trial 1: the simulator failed' in capsys.readouterr().err
    assert not out.exists()
    stand_in.breaks_in = None
    assert main(arguments) == 2
    assert 'add --resume to go on' in capsys.readouterr().err
    before = len(stand_in.environments)
    assert main([*arguments, '--resume']) == 0
    # The first task is done; in the second one the first episode is drawn, but not run.
    second, third = stand_in.environments[before:]
    assert [call for call in second.calls if call[0] in ('seed', 'reset', 'state')] == [
        ('seed', 0), ('reset',), ('reset',), ('state', 101.0), ('reset',), ('state', 102.0),
    ]  # fmt: skip
    assert sum(call[0] == 'state' for call in third.calls) == 3
    resumed = json.loads(out.read_text())
    assert main([*arguments[:-1], str(tmp_path / 'b.json')]) == 0
    whole = json.loads((tmp_path / 'b.json').read_text())
    for result in (resumed, whole):
        for row in result['rows']:
            del row['latency_p50_s'], row['latency_p95_s']
    assert resumed['rows'] == whole['rows'] and resumed['tasks'] == whole['tasks']
    assert resumed['episodes'] == 9 and resumed['settings'] == whole['settings']


def test_the_command_prints_a_line_a_task(stand_in, checkpoint, capsys):
    stand_in.done_after = 12
    arguments = ['eval', str(checkpoint), '--suite', 'libero', '--task', '1', '--episodes', '1']
    assert main([*arguments, '--task-suite', 'libero_spatial']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'task_1          1/1 = 100 % (21 to 100 %)',
        'libero_spatial  1/1 = 100 % (21 to 100 %)',
    ]


def test_the_task_suite_is_libero_s_alone(checkpoint, capsys):
    assert main(['eval', str(checkpoint), '--task-suite', 'libero_10']) == 2
    assert '--task-suite: only with --suite libero' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--task-suite', 'libero_10'], 'it was not trained on this one'),
        (['--task-suite', 'libero_11'], "task suite 'libero_11': unknown"),
        (['--task', 'fold'], "task 'fold': not in libero_spatial"),
        (['--episodes', '99'], '99 episodes a task'),
        (['--episodes', '0'], '0 episodes a task'),
        (['--ros'], '--ros: not with --suite'),
        (['--resume'], '--resume: name the result file'),
        (['--max-seconds', '3'], '--max-seconds: not with --suite'),
        (['--task', '0', '1'], '2 tasks: --suite takes one at a time'),
        (['--parallel', '2'], '--parallel: not with --suite'),
        (['--platform', 'aloha'], "platform aloha: trained for robot 'aloha'"),
    ],
)
def test_bad_input_is_one_line(stand_in, checkpoint, capsys, arguments, message):
    assert main(['eval', str(checkpoint), '--suite', 'libero', *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('hbvla: error: ') and message in lines[-1]
