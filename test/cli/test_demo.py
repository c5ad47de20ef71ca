# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The demo with a random network: every stage is real, only the skill is missing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from hbvla_ros.cli import demo_stages
from hbvla_ros.cli.demo_stages import Demo
from hbvla_ros.cli.main import main
from hbvla_ros.cli.progress import Reporter
from hbvla_ros.errors import HbvlaError

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}


def descendants(pid: int) -> list[int]:
    """Processes below ``pid``, all generations."""
    children: dict[int, list[int]] = {}
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def test_the_demo_writes_a_report_of_what_it_ran(make_tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_stages, '_CALIBRATION_EPISODES', 1)
    out, log = tmp_path / 'demo', io.StringIO()
    with Reporter(Console(file=log, width=100)) as reporter:
        demo = Demo(
            make_tiny_checkpoint(platform=SIMULATED), out, [3_000_002], reporter, max_seconds=2.0
        )
        demo.quantize(frames=8, refine=2)
        demo.drive()
        summary = demo.write_report('hbvla demo --quick', quick=True)
    report = json.loads((out / 'report.json').read_text())
    full, one_bit = report['conditions']
    assert full['size']['stored_bits_per_weight'] == 16
    assert 1 < one_bit['size']['stored_bits_per_weight'] < 4
    assert one_bit['size']['total_bytes'] == sum(
        path.stat().st_size for path in (out / 'checkpoints' / 'signplane_1bit').iterdir()
    )
    for condition in report['conditions']:
        assert condition['evaluation']['seeds'] == [3_000_002]
        assert condition['evaluation']['settings']['where'] == 'over ROS 2'
        assert condition['in_process']['settings']['where'] == 'in process'
        assert condition['evaluation']['rows'][0]['chunks'] >= 2
    assert one_bit['evaluation']['checkpoint'].startswith('signplane_1bit@')
    assert [size['driven'] for size in report['sizes']] == [True, True, False]
    assert report['versions']['mujoco'] and report['command'] == 'hbvla demo --quick'
    page = (out / 'report.html').read_text()
    assert 'data:video/mp4;base64,' in page and 'data:image/jpeg;base64,' in page
    assert 'never succeeded here' in page and 'Quick form' in page
    assert (out / 'episode.mp4').stat().st_size > 1000
    assert sorted(path.name for path in out.iterdir()) == [
        'checkpoints', 'episode.mp4', 'report.html', 'report.json',
    ]  # fmt: skip
    assert str(out / 'report.html') in summary and '0/1 = 0 %' in summary
    assert 'seed 3000002' in log.getvalue()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_no_process_and_no_half_report(make_tiny_checkpoint, tmp_path, number):
    out = tmp_path / 'demo'
    (tmp_path / 'temporary').mkdir()
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    process = subprocess.Popen(
        [sys.executable, '-c', 'from hbvla_ros.cli import demo_stages\n'
         'from hbvla_ros.cli.demo import run; import argparse, signal, sys\n'
         # A shell lets what it runs in the background ignore interrupts, and children inherit that.
         'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
         'demo_stages._CALIBRATION_EPISODES = 1\n'
         'from pathlib import Path\n'
         'try:\n'
         '    run(argparse.Namespace(quick=True, episodes=1, seed=0, out=Path(sys.argv[1]), '
         'checkpoint=Path(sys.argv[2])))\n'
         'except KeyboardInterrupt:\n'
         '    sys.exit(130)\n', str(out), str(checkpoint)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'TMPDIR': str(tmp_path / 'temporary')},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if 'Full precision over ROS 2' in line:
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    deadline = time.monotonic() + 180
    while len(descendants(process.pid)) < 4:
        assert time.monotonic() < deadline, 'the graph did not start'
        time.sleep(0.1)
    time.sleep(3.0)
    nodes = descendants(process.pid)
    process.send_signal(number)
    assert process.wait(180) == 130
    assert not [pid for pid in nodes if is_running(pid)]
    assert not list(out.glob('*report*')) and not list(out.glob('*.mp4'))
    assert not list((tmp_path / 'temporary').iterdir())
    assert not list(out.rglob('*.tmp*')) and not list(out.rglob('*.partial'))


def test_zero_episodes_are_refused_before_anything_is_done(make_tiny_checkpoint, tmp_path, capsys):
    checkpoint = make_tiny_checkpoint(platform=SIMULATED)
    arguments = ['demo', '--checkpoint', str(checkpoint), '--out', str(tmp_path / 'demo')]
    assert main([*arguments, '--episodes', '0']) == 2
    assert capsys.readouterr().err == 'hbvla: error: 0 episodes: run at least one\n'
    assert not (tmp_path / 'demo').exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'demo').write_text('mine')
    with pytest.raises(HbvlaError, match='is a file; give a folder with --out'):
        Demo(tmp_path, tmp_path / 'demo', [3_000_000], Reporter())


def test_a_policy_of_another_robot_is_refused_before_the_nodes_start(
    make_tiny_checkpoint, tmp_path
):
    with Reporter(Console(file=io.StringIO())) as reporter:
        demo = Demo(make_tiny_checkpoint(), tmp_path / 'demo', [3_000_000], reporter)
        with pytest.raises(HbvlaError, match="trained for robot 'aloha'"):
            demo.quantize(frames=8, refine=2)
    assert not (tmp_path / 'demo').exists()
