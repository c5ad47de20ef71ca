# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A soak: simulated operation for long, with faults at random; what came of it.

Nothing of ROS is imported here: :mod:`hbvla_ros.nodes.faults.soak` is a process that starts and
ends the nodes, and reports in JSON lines.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.processes import Supervisor, free_domain, ros_environment

# As the process knows them; the table of docs/safety.md has them all.
FAULTS = (
    'camera stops', 'camera freezes', 'joint states stop', 'wrong joint names', 'malformed images',
    'policy hangs', '2 s inference spike', 'NaN action', 'inf action', 'out-of-limit action',
    'instruction flood', 'policy process killed', 'policy process stands still',
    'arm process killed', 'arm process stands still', 'guard killed', 'two writers',
    'clock jumps back',
)  # fmt: skip
# Whose memory must not grow. The rest is the stage: drivers, and the recorder, which sees every
# process that is killed and started, and DDS keeps something of each.
NODES = ('arm_node', 'guard_node', 'policy_node')
_LONGEST, _FASTEST = 24 * 60.0, 10.0
Event = dict[str, Any]


@dataclass(frozen=True)
class SoakOptions:
    """What is to be done.

    Attributes:
        minutes: of the robot's time.
        time_scale: seconds of the robot's time a second.
        seed: of the order of the faults and of the pauses between them.
        faults: to choose from.
    """

    minutes: float = 30.0
    time_scale: float = 1.0
    seed: int = 0
    faults: tuple[str, ...] = FAULTS

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            HbvlaError: naming option and value.
        """
        if not 0.0 < self.minutes <= _LONGEST:
            raise HbvlaError(f'--minutes {self.minutes:g}: must be above 0, at most {_LONGEST:g}')
        if not 0.1 <= self.time_scale <= _FASTEST:
            raise HbvlaError(f'--time-scale {self.time_scale:g}: must be 0.1 to {_FASTEST:g}')
        if self.seed < 0:
            raise HbvlaError(f'--seed {self.seed}: must not be below 0')
        for name in self.faults:
            if name not in FAULTS:
                raise HbvlaError(f'--fault {name!r}: no such fault; known are {", ".join(FAULTS)}')


@dataclass
class SoakResult:
    """What came of it.

    Attributes:
        options: what was asked for.
        events: faults, violations and stops that nobody asked for, in the order of time.
        summary: what was seen on the wire, and memory.
        ended: why it ended before its time, empty if it did not.
        wall_seconds: how long it took.
    """

    options: SoakOptions
    events: list[Event] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    ended: str = ''
    wall_seconds: float = 0.0

    def of(self, kind: str) -> list[Event]:
        """Events of a kind."""
        return [event for event in self.events if event['event'] == kind]

    @property
    def failures(self) -> list[str]:
        """What must not be, one line each; none if all is well."""
        lines = [f'ended early: {self.ended}'] if self.ended else []
        lines += [f'{e["during"]}: {e["kind"]}: {e["text"]}' for e in self.of('violation')]
        bad = [e for e in self.of('fault') if e['verdict'] in ('late', 'not as specified')]
        lines += [f'{e["name"]}: {e["verdict"]} {e["text"]}'.strip() for e in bad]
        memory = self.summary.get('memory', ())
        growing = [one for one in memory if one['grows'] and one['name'] in NODES]
        lines += [f'{one["name"]}: memory grows by {one["slope"]:.1f} MB/h' for one in growing]
        if not self.ended and not self.of('fault'):
            lines.append('no fault was brought about: the time was too short')
        return lines


def soak(options: SoakOptions, progress: Callable[[Event], None] | None = None) -> SoakResult:
    """Run it on a graph of its own, which is stopped afterwards; an interrupt only ends it early.

    Args:
        options: what is to be done.
        progress: called with each event as it comes.

    Raises:
        HbvlaError: bad options, or the processes could not be started.
    """
    options.check()
    started, result = time.perf_counter(), SoakResult(options)
    folder = Path(tempfile.mkdtemp(prefix='hbvla-soak-'))
    # The process chooses a domain for its nodes by itself; this one is not used.
    with Supervisor(folder, ros_environment(free_domain())) as supervisor:
        try:
            for event in _events(supervisor, folder, options):
                if event['event'] == 'done':
                    result.summary = event
                elif event['event'] == 'error':
                    result.ended = f'{event["message"]}; see {folder}'
                else:
                    result.events.append(event)
                if progress is not None:
                    progress(event)
        except KeyboardInterrupt:
            # Hours of it may be worth a look.
            result.ended = 'interrupted'
        if not result.of('ready'):
            raise HbvlaError(result.ended or f'the soak did not begin; see {folder}')
    result.wall_seconds = time.perf_counter() - started
    if not result.failures:
        # The logs are kept when something went wrong.
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _events(supervisor: Supervisor, folder: Path, options: SoakOptions) -> Iterator[Event]:
    """What the process says until it ends."""
    child = supervisor.start('soak', _arguments(folder, options), output=subprocess.PIPE)
    stream = child.process.stdout
    assert stream is not None
    last = ''
    for line in stream:
        event = json.loads(line)
        last = event['event']
        yield event
    child.process.wait()
    supervisor.forget(child)
    if last not in ('done', 'error'):
        yield {'event': 'error', 'message': str(child.failure())}


def _arguments(folder: Path, options: SoakOptions) -> Sequence[str]:
    return [
        '-m', 'hbvla_ros.nodes.faults.soak', '--folder', str(folder),
        '--minutes', str(options.minutes), '--time-scale', str(options.time_scale),
        '--seed', str(options.seed), '--faults', *options.faults,
    ]  # fmt: skip
