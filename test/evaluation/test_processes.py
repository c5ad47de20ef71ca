# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Real children: small Python programs that end, crash, obey or refuse to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import processes
from hbvla_ros.evaluation.processes import Supervisor, free_domain, ros_environment

OBEDIENT = (
    'import signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n'
    'print("ready", flush=True)\n'
    'time.sleep(600)'
)
STUBBORN = OBEDIENT.replace('lambda *_: sys.exit(0)', 'signal.SIG_IGN')


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited too long'
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    return text.rpartition(')')[2].split()[0] != 'Z'


def test_children_are_stopped_and_their_clean_exit_is_checked(tmp_path):
    with Supervisor(tmp_path, os.environ) as supervisor:
        child = supervisor.start('arm', ['-c', OBEDIENT])
        wait_for(lambda: 'ready' in child.tail())
        supervisor.check()
    assert child.process.returncode == 0


def test_a_dead_child_is_one_line_with_the_end_of_its_log(tmp_path):
    with pytest.raises(HbvlaError) as caught, Supervisor(tmp_path, os.environ) as supervisor:
        other = supervisor.start('simulator', ['-c', OBEDIENT])
        supervisor.start('policy', ['-c', 'import sys; sys.exit("no such checkpoint")'])
        wait_for(lambda: _died(supervisor))
    assert str(caught.value).startswith('policy ended with status 1: no such checkpoint')
    assert 'policy.log' in str(caught.value) and '\n' not in str(caught.value)
    assert not is_running(other.process.pid)


def _died(supervisor: Supervisor) -> bool:
    supervisor.check()
    return False


def test_a_child_that_ignores_the_request_is_killed_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, '_STOP_SECONDS', 0.3)
    supervisor = Supervisor(tmp_path, os.environ)
    child = supervisor.start('policy', ['-c', STUBBORN])
    wait_for(lambda: 'ready' in child.tail())
    (failure,) = supervisor.stop()
    assert 'policy was killed by SIGKILL' in str(failure)
    assert not is_running(child.process.pid)


def test_children_die_with_a_parent_that_is_killed(tmp_path):
    program = (
        'import os, sys, time\n'
        'from pathlib import Path\n'
        'from hbvla_ros.evaluation.processes import Supervisor\n'
        f'supervisor = Supervisor(Path({str(tmp_path)!r}), os.environ)\n'
        f'child = supervisor.start("arm", ["-c", {OBEDIENT!r}])\n'
        'while "ready" not in child.tail():\n'
        '    time.sleep(0.02)\n'
        'print(child.process.pid, flush=True)\n'
        'time.sleep(600)'
    )
    parent = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_running(pid))


def test_interrupt_of_the_terminal_does_not_reach_the_children(tmp_path):
    with Supervisor(tmp_path, os.environ) as supervisor:
        child = supervisor.start('arm', ['-c', OBEDIENT])
        wait_for(lambda: 'ready' in child.tail())
        assert os.getpgid(child.process.pid) != os.getpgid(0)


def test_domain_in_use_is_not_chosen(monkeypatch):
    import socket

    # Two that no other program uses at present.
    used = free_domain()
    other = next(domain for domain in iter(free_domain, used))
    monkeypatch.setattr(processes, '_DOMAINS', (used, other))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('127.0.0.1', 7400 + 250 * used + 10))
        assert {free_domain() for _ in range(20)} == {other}


def test_nodes_stay_on_this_machine(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    environment = ros_environment(7)
    assert environment['ROS_DOMAIN_ID'] == '7'
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    assert ros_environment(7)['ROS_LOCALHOST_ONLY'] == '1'
