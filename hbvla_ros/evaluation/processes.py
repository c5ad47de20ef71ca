# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Child processes that are watched, stopped cleanly and never left behind."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from hbvla_ros.errors import HbvlaError

_STOP_SECONDS = 15.0
_TAIL_LINES = 12
# DDS takes its ports from the domain: 7400 + 250 * domain and a few above. 101 is the largest
# domain whose ports stay below those that Linux hands out to other programs.
_DOMAINS = range(1, 102)
_PORT_BASE, _PORTS_PER_DOMAIN = 7400, 250

# Runs first in each child: the kernel is to send it SIGTERM when its parent dies, however that
# happens, and then it becomes the program asked for.
_BIND_TO_PARENT = """
import ctypes, os, signal, sys
if sys.platform == 'linux':
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def free_domain() -> int:
    """A ROS domain that nothing on this machine uses at present."""
    taken = set()
    for name in ('/proc/net/udp', '/proc/net/udp6'):
        try:
            lines = Path(name).read_text(encoding='utf-8').splitlines()[1:]
        except OSError:
            continue
        ports = [int(line.split()[1].rpartition(':')[2], 16) for line in lines]
        taken |= {(port - _PORT_BASE) // _PORTS_PER_DOMAIN for port in ports if port > _PORT_BASE}
    free = [domain for domain in _DOMAINS if domain not in taken]
    # By chance, so that two runs that start at the same moment hardly ever meet.
    return random.SystemRandom().choice(free or list(_DOMAINS))


def ros_environment(domain: int) -> dict[str, str]:
    """Environment in which nodes find only each other, on this machine."""
    environment = dict(os.environ)
    environment['ROS_DOMAIN_ID'] = str(domain)
    if environment.get('ROS_DISTRO') == 'humble':
        environment['ROS_LOCALHOST_ONLY'] = '1'
    else:
        environment.pop('ROS_LOCALHOST_ONLY', None)
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # A log that stops in the middle of a line says nothing about why a process died.
    environment['PYTHONUNBUFFERED'] = '1'
    return environment


@dataclass(frozen=True)
class Child:
    """One supervised process with a log file of its own."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def tail(self) -> str:
        """The last lines of the log."""
        try:
            text = self.log.read_text(encoding='utf-8', errors='replace')
        except OSError:
            return ''
        return '\n'.join(text.strip().splitlines()[-_TAIL_LINES:])

    def failure(self) -> HbvlaError:
        """One line: who ended, how, and the first error in its log's tail or its last words."""
        status = self.process.poll()
        said = self.tail().splitlines()
        errors = [line for line in said if line.startswith(('[ERROR]', '[FATAL]'))]
        # The first error is the cause, those after it are its consequences.
        line = errors[0] if errors else (said or ['it said nothing'])[-1]
        # A log line of ROS starts with level, time and name, each in brackets.
        text = re.sub(r'^(\[[^]]*\] ?){3}: ', '', line)
        return HbvlaError(f'{self.name} {_ended(status)}: {text}; see {self.log}')


def _ended(status: int | None) -> str:
    if status is None:
        return 'did not end'
    if status < 0:
        return f'was killed by {signal.Signals(-status).name}'
    return f'ended with status {status}'


class Supervisor:
    """Starts processes, notices when one dies, and stops them all on leaving the context."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Logs go to ``folder``; every child gets ``environment``."""
        self._folder = folder
        self._environment = dict(environment)
        self._children: list[Child] = []

    def start(
        self, name: str, arguments: Sequence[str], output: IO[str] | int | None = None
    ) -> Child:
        """Start ``python arguments`` as a child.

        Args:
            name: what errors call it; also names its log.
            arguments: after the interpreter, such as ``['-m', 'package.module']``.
            output: where its standard output goes; the log by default. ``subprocess.PIPE`` gives
                ``child.process.stdout``.
        """
        log = self._folder / f'{name}.log'
        with open(log, 'w', encoding='utf-8') as file:
            process = subprocess.Popen(
                [sys.executable, '-c', _BIND_TO_PARENT, str(os.getpid()), sys.executable]
                + list(arguments),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file if output is None else output,
                stderr=file,
                text=True,
                # Ctrl-C in a terminal goes to every process of the group; the children are
                # stopped by us, in order, and not by the terminal.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise the error of the first child that has ended although nobody stopped it."""
        for child in self._children:
            if child.process.poll() is not None:
                raise child.failure()

    def forget(self, child: Child) -> None:
        """No longer watch a child that was expected to end."""
        self._children.remove(child)

    def stop(self) -> list[HbvlaError]:
        """Send SIGTERM to the last started first and wait; returns one error each bad ending."""
        children, self._children = self._children, []
        running = []
        for child in reversed(children):
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
                running.append(child)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in running:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        for child in children:
            if child.process.stdout is not None:
                child.process.stdout.close()
        return [child.failure() for child in children if child.process.returncode != 0]

    def __enter__(self) -> Supervisor:
        """The supervisor itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all children; an unclean ending is an error unless one is under way already."""
        failures = self.stop()
        if failures and error is None:
            raise failures[0]
