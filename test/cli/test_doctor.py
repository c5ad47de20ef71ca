# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hbvla_ros.cli import doctor, doctor_libraries, doctor_ros
from hbvla_ros.cli.doctor_rows import probe


def run_doctor(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    options = parser.parse_args(['doctor', *arguments])
    return options.run(options)


def test_json_lists_every_part_of_the_machine_that_runs_this_suite(capsys):
    status = run_doctor('--json')
    report = json.loads(capsys.readouterr().out)
    rows = {row['name']: row for row in report['rows']}
    # This suite needs all of them, so here each must be found.
    for name in ('interpreter', 'libraries', 'torch', 'ROS 2', 'messages', 'simulator', 'renderer'):
        assert rows[name]['state'] == 'ok', rows[name]
    assert rows['interpreter']['found'].startswith(f'Python {sys.version.split()[0]}')
    assert 'rclpy' in rows['ROS 2']['found'] and 'rmw_' in rows['ROS 2']['found']
    assert 'torch reference' in rows['kernels']['found']
    assert 'rmem_max' in rows['DDS buffers']['found']
    assert {row['state'] for row in rows.values()} <= {'ok', 'limited', 'missing'}
    assert all(row['why'] and row['fix'] for row in rows.values())
    assert report['ok'] is True and status == 0


def test_plain_report_says_why_and_how_for_what_is_not_in_order(capsys, monkeypatch):
    monkeypatch.setenv('MUJOCO_GL', 'nonsense')  # The probes choose their own backend.
    monkeypatch.setattr(doctor, '_CHECKS', (doctor_ros.check_ros,))
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_of_nobody_cpp')
    assert run_doctor() == 1
    text = capsys.readouterr().out
    assert text.startswith('missing ROS 2')
    assert 'why: the nodes run on rclpy' in text
    assert 'fix: source a ROS 2 installation' in text
    assert 'Something required is missing' in text


def test_an_absent_library_is_named(monkeypatch, tmp_path: Path):
    # A broken package that shadows the real one, as a bad wheel would.
    (tmp_path / 'tokenizers.py').write_text('raise ImportError("libstdc++ is too old")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    row = doctor_libraries.check_libraries()
    assert row.state == 'missing' and row.required
    assert 'libstdc++ is too old' in row.found


def test_numpy_too_new_for_cv_bridge_is_limited(monkeypatch, tmp_path: Path):
    (tmp_path / 'numpy.py').write_text('__version__ = "2.4.1"')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    row = doctor_libraries.check_numpy()
    assert row.state == 'limited' and row.found == '2.4.1' and '<2.3' in row.fix


def test_a_crashing_library_costs_one_row_only():
    found, error = probe('import os; os.abort()')
    assert found == {} and error.startswith('exit status -')
