# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hbvla_ros.cli import (
    doctor,
    doctor_libraries,
    doctor_network,
    doctor_python,
    doctor_ros,
    doctor_torch,
)
from hbvla_ros.cli.doctor_rows import STATES, probe
from hbvla_ros.errors import HbvlaError

# Hides ROS 2 from an interpreter and from all that it starts.
WITHOUT_ROS = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
hidden = ('rclpy', 'cv_bridge', 'sensor_msgs', 'launch_ros')
PathFinder.find_spec = classmethod(
    lambda kind, name, path=None, target=None:
    None if name.partition('.')[0] in hidden else found(name, path, target))
"""


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
    for name in ('interpreter', 'libraries', 'torch', 'rclpy', 'ROS 2', 'messages', 'simulator'):
        assert rows[name]['state'] == 'ok', rows[name]
    assert rows['renderer']['state'] == 'ok', rows['renderer']
    assert rows['interpreter']['found'].startswith(f'Python {sys.version.split()[0]} at ')
    assert sys.executable in rows['interpreter']['found']
    assert 'rclpy' in rows['ROS 2']['found'] and 'rmw_' in rows['ROS 2']['found']
    assert 'CUDA' in rows['torch']['found']
    assert 'torch reference' in rows['kernels']['found']
    for setting in ('net.core.rmem_max', 'net.ipv4.ipfrag_time', 'net.ipv4.ipfrag_high_thresh'):
        assert setting in rows['socket buffers']['found']
    assert {row['state'] for row in rows.values()} <= set(STATES)
    assert all(row['why'] and row['fix'] for row in rows.values())
    assert report['ok'] is True and status == 0


def test_a_fault_has_its_fix_in_the_same_line_and_exit_status_1(capsys, monkeypatch):
    monkeypatch.setattr(doctor, '_CHECKS', (doctor_ros.check_ros,))
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_of_nobody_cpp')
    assert run_doctor() == 1
    line, _, summary = capsys.readouterr().out.strip().split('\n')
    assert line.startswith('fault    ROS 2')
    assert 'why: the nodes run on rclpy; fix: source a ROS 2 installation' in line
    assert 'unset RMW_IMPLEMENTATION=rmw_of_nobody_cpp' in line
    assert summary == '0 ok, 0 warnings, 1 faults: mend the faults first.'


def test_without_ros_it_says_so_and_is_no_fault(tmp_path: Path):
    (tmp_path / 'sitecustomize.py').write_text(WITHOUT_ROS)
    root = Path(doctor.__file__).parents[2]
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{root}'}

    def doctor_process(*arguments):
        command = [sys.executable, '-m', 'hbvla_ros.cli.main', 'doctor', '--json', *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        return done.returncode, rows

    # One process for both: what --robot adds is looked at last.
    status, rows = doctor_process('--robot', 'aloha_sim', '--seconds', '0.1')
    for name in ('rclpy', 'ROS 2', 'messages', 'cv_bridge'):
        assert rows[name]['state'] == 'warning', rows[name]
    assert 'not installed' in rows['ROS 2']['found'] and 'pip install' in rows['ROS 2']['fix']
    assert rows['torch']['state'] == 'ok', 'its other findings are there all the same'
    # Asked to look at a robot, it cannot do without.
    assert rows['ROS 2 graph']['state'] == 'fault' and status == 1
    assert [row['name'] for row in rows.values() if row['state'] == 'fault'] == ['ROS 2 graph']


def test_an_absent_library_is_named(monkeypatch, tmp_path: Path):
    # A broken package that shadows the real one, as a bad wheel would.
    (tmp_path / 'tokenizers.py').write_text('raise ImportError("libstdc++ is too old")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    row = doctor_libraries.check_libraries()
    assert row.state == 'fault'
    assert 'libstdc++ is too old' in row.found


def test_numpy_too_new_for_cv_bridge_is_a_warning(monkeypatch, tmp_path: Path):
    (tmp_path / 'numpy.py').write_text('__version__ = "2.4.1"')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    row = doctor_libraries.check_numpy()
    assert row.state == 'warning' and row.found == '2.4.1' and '<2.3' in row.fix


def test_a_crashing_library_costs_one_row_only():
    found, error = probe('import os; os.abort()')
    assert found == {} and error.startswith('exit status -')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('--checkpoint', '/nowhere/at/all'), '--checkpoint /nowhere/at/all: no such folder'),
        (('--robot', 'nobody'), "unknown robot 'nobody'"),
        (('--robot', 'aloha_sim', '--seconds', '0'), '--seconds 0: give more than 0'),
        (('--robot', 'aloha_sim', '--seconds', 'nan'), '--seconds nan: give more than 0'),
    ],
)
def test_bad_input_is_one_line_before_anything_is_looked_at(monkeypatch, arguments, message):
    monkeypatch.setattr(doctor, '_CHECKS', ())
    with pytest.raises(HbvlaError) as caught:
        run_doctor(*arguments)
    assert message in str(caught.value)


def rclpy_for(folder: Path, *builds: str) -> Path:
    """A folder that holds an rclpy with binary parts for some versions of Python."""
    package = folder / 'rclpy'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    for build in builds:
        (package / f'_rclpy_pybind11.cpython-{build}-x86_64-linux-gnu.so').touch()
    return package


def test_an_rclpy_for_another_python_is_a_fault(monkeypatch, tmp_path: Path):
    package = rclpy_for(tmp_path, '39')
    monkeypatch.setattr(doctor_python, 'rclpy_folder', lambda: package)
    row = doctor_python.check_rclpy_build()
    assert row.state == 'fault'
    assert f'{package} is built for Python 3.9' in row.found and 'python3.9' in row.fix


def test_a_ros_that_is_not_sourced_is_named(monkeypatch, tmp_path: Path):
    rclpy_for(tmp_path / 'jazzy' / 'lib' / 'python3.12' / 'site-packages', '312')
    monkeypatch.setattr(doctor_python, 'rclpy_folder', lambda: None)
    monkeypatch.setattr(doctor_python, '_ROS_FOLDER', tmp_path)
    row = doctor_python.check_rclpy_build()
    assert row.state == 'warning'
    assert row.fix == f'source {tmp_path}/jazzy/setup.bash and run it with python3.12'


def test_an_active_conda_is_a_warning(monkeypatch, tmp_path: Path):
    monkeypatch.setenv('CONDA_PREFIX', str(tmp_path))
    row = doctor_python.check_interpreter()
    assert row.state == 'warning'
    assert f'conda active at {tmp_path}' in row.found and 'conda deactivate' in row.fix


def test_two_distributions_in_one_shell_are_a_warning(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    row = doctor_ros.check_ros()
    assert row.state == 'warning' and 'ROS_DISTRO says humble' in row.found


def kernel(folder: Path, **values: int) -> Path:
    """A /proc/sys with the three settings; the names are those of the files."""
    places = {'rmem_max': 'net/core', 'ipfrag_high_thresh': 'net/ipv4', 'ipfrag_time': 'net/ipv4'}
    for name, value in values.items():
        place = folder / places[name]
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f'{value}\n')
    return folder


def test_the_sysctl_line_has_what_is_too_small_and_nothing_else(monkeypatch, tmp_path: Path):
    proc = kernel(tmp_path, rmem_max=212992, ipfrag_high_thresh=2**27, ipfrag_time=30)
    monkeypatch.setattr(doctor_network, '_PROC', proc)
    row = doctor_network.check_socket_buffers()
    assert row.state == 'warning'
    line = 'sudo sysctl -w net.core.rmem_max=33554432 net.ipv4.ipfrag_time=3 '
    assert row.fix.startswith(line)
    # What the line sets is enough.
    kernel(tmp_path, rmem_max=33554432, ipfrag_time=3)
    assert doctor_network.check_socket_buffers().state == 'ok'


def facts(capability=(9, 0), **changes):
    """What a machine with one GPU says of itself."""
    gpu = {'name': 'GPU of tests', 'free': 4e9, 'total': 8e9, 'capability': list(capability)}
    found = {'version': '2.9.1+cu128', 'cuda': '12.8', 'gpus': [gpu], 'reason': '',
             'builds': ['sm_80', 'sm_90', 'compute_90'], 'triton': '3.5.1',
             'triton_wanted': '==3.5.1', 'triton_fits': True}  # fmt: skip
    return {**found, **changes}


@pytest.mark.parametrize(
    'found, driver, state, text',
    [
        (facts(), True, 'ok', 'CUDA 12.8: GPU of tests (sm_90)'),
        (facts((8, 6)), True, 'ok', 'sm_86'),
        (facts((12, 0)), True, 'ok', 'sm_120'),
        (facts((7, 5)), True, 'warning', 'is sm_75, this build is for sm_80'),
        (facts((7, 5), builds=['sm_75']), True, 'warning', 'has no bfloat16'),
        (facts(gpus=[]), True, 'warning', 'NVIDIA driver that this build of torch does not use'),
        (facts(gpus=[], reason='driver too old'), True, 'warning', '(driver too old)'),
        (facts(gpus=[], reason='Found no NVIDIA driver'), False, 'ok', 'CPU only'),
        ({}, False, 'fault', 'libcudart.so is missing'),
    ],
)
def test_torch_and_the_gpu_are_compared(found, driver, state, text):
    row = doctor_torch.torch_row(found, 'libcudart.so is missing', driver)
    assert row.state == state and text in row.found, row


def test_another_triton_than_torch_was_built_with_is_a_warning():
    assert doctor_torch.kernels_row(facts()).state == 'ok'
    row = doctor_torch.kernels_row(facts(triton='2.1.0', triton_fits=False))
    assert row.state == 'warning' and 'this torch wants Triton 3.5.1' in row.found
    assert row.fix == 'pip install triton==3.5.1'
