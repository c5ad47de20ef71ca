# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys

import pytest

from hbvla_ros.cli import eval_progress, eval_run
from hbvla_ros.cli.main import main
from hbvla_ros.sim import rendering

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}
# Ten steps an episode: random weights need no longer to fail.
SHORT = ['--max-seconds', '0.4']
HERE = [*SHORT, '--workers', '0', '--parallel', '1']


def test_json_has_rate_interval_seeds_digests_and_versions(make_tiny_checkpoint, tmp_path, capsys):
    checkpoint, out = (
        make_tiny_checkpoint('random', platform=SIMULATED),
        tmp_path / 'new' / 'e.json',
    )
    arguments = ['eval', str(checkpoint), '--episodes', '3', '--seed', '20', *SHORT]
    assert main([*arguments, '--parallel', '2', '--json', '--out', str(out)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result == json.loads(out.read_text())
    assert (result['success_rate'], result['episodes']) == (0.0, 3)
    assert result['interval'] == pytest.approx([0.0, 0.5615], abs=1e-4)
    assert result['seeds'] == [3_000_020, 3_000_021, 3_000_022]
    assert result['settings']['max_steps'] == 10 and result['settings']['parallel'] == 2
    assert result['settings']['max_seconds'] == 0.4
    assert result['checkpoint'].startswith('random@') and result['versions']['torch']
    assert result['folder'] == str(checkpoint) and result['task'] == 'pick_place'
    assert result['method'] == 'none' and result['stored_bits_per_weight'] == 16.0
    assert all(len(result['digests'][name]) == 64 for name in ('task', 'settings'))
    assert len(result['rows']) == 3 and result['rows'][0]['jerk_rms'] > 0
    assert 'seed 3000021' in captured.err


def test_plain_output_is_the_phrase_with_the_interval(make_tiny_checkpoint, capsys):
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    assert main(['eval', str(checkpoint), '--episodes', '1', *HERE]) == 0
    assert capsys.readouterr().out.startswith('success  0/1 = 0 % (0 to 79 %)\n')


def test_an_adapter_runs_on_its_base(make_tiny_checkpoint, tiny_adapter, capsys):
    base = make_tiny_checkpoint(platform=SIMULATED)
    arguments = ['eval', str(tiny_adapter(base)), '--episodes', '1', '--device', 'cpu', *HERE]
    assert main([*arguments, '--base', str(base)]) == 0
    assert capsys.readouterr().out.startswith('success  0/1')


def other_checkpoint(make_tiny_checkpoint, name='other'):
    """The same weights under another name, so with another identity."""
    return make_tiny_checkpoint(name, platform=SIMULATED)


def test_several_checkpoints_and_tasks_make_tables_and_plots(
    make_tiny_checkpoint, tmp_path, capsys
):
    full, poor = (other_checkpoint(make_tiny_checkpoint, name) for name in ('full', 'poor'))
    page, plots = tmp_path / 'docs' / 'table.md', tmp_path / 'plots'
    arguments = ['eval', str(full), str(poor), '--task', 'pick_place', 'sequence', *HERE]
    arguments += ['--episodes', '2', '--against', str(full), '--reference', str(full)]
    arguments += ['--reference-episodes', '1', '--markdown', str(page), '--plots', str(plots)]
    assert main([*arguments, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    keys = [(one['checkpoint'].partition('@')[0], one['task']) for one in report['results']]
    assert keys == [
        ('full', 'pick_place'), ('full', 'sequence'), ('poor', 'pick_place'), ('poor', 'sequence'),
    ]  # fmt: skip
    assert [one['episodes'] for one in report['totals']] == [4, 4]
    assert set(report['digests']['tasks']) == {'pick_place', 'sequence'}
    paired = report['totals'][1]['paired']
    assert paired['reference'] == report['totals'][0]['checkpoint'] and paired['neither'] == 4
    # The same weights: nothing to tell apart along the reference's episodes.
    assert report['results'][2]['action_error']['relative_rms'] == pytest.approx(0.0, abs=1e-6)
    assert 'action_error' not in report['results'][0]
    text = page.read_text()
    assert '| poor | 16.00 | 0/2 = 0 %' in text and 'McNemar' in text
    assert sorted(path.name for path in plots.iterdir()) == [
        'drift.png', 'drift.svg', 'success.png', 'success.svg', 'success_by_task.png',
        'success_by_task.svg',
    ]  # fmt: skip


def test_one_checkpoint_against_an_earlier_result(make_tiny_checkpoint, tmp_path, capsys):
    full, poor = (other_checkpoint(make_tiny_checkpoint, name) for name in ('full', 'poor'))
    earlier = tmp_path / 'full.json'
    assert main(['eval', str(full), '--episodes', '3', *HERE, '--out', str(earlier)]) == 0
    arguments = ['eval', str(poor), '--episodes', '2', *HERE, '--against', str(earlier)]
    assert main([*arguments, '--json']) == 0
    capsys.readouterr()
    assert main([*arguments, '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['checkpoint'].startswith('poor@') and result['paired']['episodes'] == 2
    assert result['reference']['checkpoint'].startswith('full@')
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert 'difference  +0 (-66 to +66) points, p = 1' in printed and 'kept  - of' in printed
    assert main([*arguments[:3], '3', '--seed', '1', *arguments[4:]]) == 2
    assert 'was not run on seed 3000003 (1 of 3 are missing)' in capsys.readouterr().err


def test_an_interrupted_run_goes_on(make_tiny_checkpoint, tmp_path, capsys, monkeypatch):
    checkpoint = make_tiny_checkpoint('random', platform=SIMULATED)
    out = tmp_path / 'e.json'
    arguments = ['eval', str(checkpoint), '--episodes', '3', *HERE, '--out', str(out)]
    whole = eval_progress.UnitProgress._say

    def interrupt(self, record):
        whole(self, record)
        if record['seed'] == 3_000_001:
            raise KeyboardInterrupt

    monkeypatch.setattr(eval_progress.UnitProgress, '_say', interrupt)
    assert main(arguments) == 130
    captured = capsys.readouterr()
    assert '2 of 3 episodes are kept in' in captured.err and '--resume goes on' in captured.err
    assert not out.exists() and (tmp_path / 'e.episodes.jsonl').exists()
    monkeypatch.setattr(eval_progress.UnitProgress, '_say', whole)
    assert main(arguments) == 2
    assert 'holds 2 finished episodes' in capsys.readouterr().err
    assert main([*arguments, '--parallel', '2', '--resume']) == 2
    assert 'was run with parallel 1, now it is 2' in capsys.readouterr().err
    assert main([*arguments, '--resume']) == 0
    captured = capsys.readouterr()
    assert '2 episodes were finished by an earlier run' in captured.err
    assert 'seed 3000001' not in captured.err and 'seed 3000002' in captured.err
    assert json.loads(out.read_text())['episodes'] == 3
    # What came to its end may be run again, and a checkpoint that has changed may not go on.
    (checkpoint / 'training.json').write_text('{}')
    assert main([*arguments, '--resume']) == 2
    assert f'checkpoint {checkpoint} has changed since' in capsys.readouterr().err
    assert main(arguments) == 0


def test_a_result_that_has_no_place_is_refused_before_the_episodes(
    make_tiny_checkpoint, tmp_path, capsys, monkeypatch
):
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    monkeypatch.setattr(eval_run, 'run_harness', lambda *_: pytest.fail('an episode was run'))
    inside = checkpoint / 'config.json' / 'result.json'
    for option, path in [('--out', tmp_path), ('--out', inside), ('--markdown', tmp_path),
                         ('--plots', inside)]:  # fmt: skip
        assert main(['eval', str(checkpoint), '--episodes', '1', option, str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f'hbvla: error: {path}') and error.count('\n') == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--seed', '-1'], 'seed -1: belongs to other, not evaluation'),
        (['--device', 'cuda:99'], 'device cuda:99: not available here'),
        (['--device', 'toaster'], 'device toaster: not available here'),
        (['--ros', '--parallel', '8'], '--parallel: not with --ros'),
        (['--ros', '--workers', '2'], '--workers: not with --ros'),
        (['--ros', '--ray'], '--ray: not with --ros'),
        (['--ros', '--device', 'cpu'], '--device: not with --ros'),
        (['--ros', '--base', 'folder'], '--base: not with --ros'),
        (['--seed', '1000000'], 'seed 1000000: belongs to demos, not evaluation'),
        (['--task', 'fold'], "task 'fold': unknown; the tasks are pick_place"),
        (['--task', 'pick_place', 'fold'], "task 'fold': unknown"),
        (['--episodes', '0'], '0 episodes'),
        (['--parallel', '0'], '--parallel 0: at least 1'),
        (['--workers', '-2'], '--workers -2: must not be negative'),
        (['--max-seconds', '0.01'], '0.01 s: an episode takes at least one step, 0.04 s'),
        (['--max-seconds', '-3'], '-3 s: an episode takes at least one step'),
        (['--resume'], '--resume: name the result file'),
        (['--ray'], '--ray: package ray is not installed'),
        (['--against', 'nowhere.json'], 'nowhere.json: cannot read it'),
        (['--reference', 'nowhere'], 'nowhere: no such checkpoint folder'),
        (['--platform', 'libero'], "trained for robot 'libero'"),
    ],
)
def test_bad_input_is_one_line(make_tiny_checkpoint, capsys, monkeypatch, arguments, message):
    monkeypatch.setitem(sys.modules, 'ray', None)
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    assert main(['eval', str(checkpoint), *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('hbvla: error: ') and message in lines[-1]
    assert len(lines) == 1


def test_a_checkpoint_that_does_not_fit_is_refused(make_tiny_checkpoint, capsys, tmp_path):
    other = make_tiny_checkpoint('other', platform={**SIMULATED, 'cameras': ('cam_high',) * 1})
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    assert main(['eval', str(checkpoint), '--reference', str(other)]) == 2
    assert "cameras ('cam_high',), that of tiny@" in capsys.readouterr().err
    low = make_tiny_checkpoint('low', platform={**SIMULATED, 'cameras': ('cam_low',)})
    assert main(['eval', str(checkpoint), str(low)]) == 2
    assert "camera 'cam_low' is not on the simulated robot" in capsys.readouterr().err
    for option in ('--against', '--reference'):
        assert main(['eval', str(checkpoint), option, str(checkpoint)]) == 2
        assert f'{option} {checkpoint}: is the only checkpoint' in capsys.readouterr().err
    assert main(['eval', str(tmp_path / 'gone')]) == 2
    assert 'gone: no such checkpoint folder' in capsys.readouterr().err


def test_no_renderer_is_one_line(make_tiny_checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(rendering, '_chosen', [])
    monkeypatch.delenv('HBVLA_GL_CHECKED', raising=False)
    monkeypatch.setattr(rendering, 'backend_works', lambda name: False)
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    assert main(['eval', str(checkpoint), *HERE]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('hbvla: error: no rendering backend works')
