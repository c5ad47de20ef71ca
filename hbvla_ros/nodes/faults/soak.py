# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Operation with faults at random, for long: the process behind ``hbvla soak``.

Reports in JSON lines on its standard output, as :mod:`hbvla_ros.nodes.episode_runner` does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.memory_track import MemoryTrack
from hbvla_ros.nodes.faults.cast import ARMS, GUARD
from hbvla_ros.nodes.faults.drill import Drill, Undecided
from hbvla_ros.nodes.faults.kinds import KINDS, Kind
from hbvla_ros.nodes.faults.stage import on_stage

NAME = 'soak'
# Between a recovery and the next fault, s of the robot's time.
_REST = (1.0, 8.0)
_TURN = 0.05
# More violations than these are counted and not told.
_MOST_TOLD = 20


def report(event: str, **values: Any) -> None:
    """Print one event."""
    print(json.dumps({'event': event, **values}), flush=True)


class Soak:
    """Brings faults about until the time is over.

    Args:
        drill: cast and recorder, running.
        seed: of the order of the faults and of the pauses between them.
        names: faults to choose from.
    """

    def __init__(self, drill: Drill, seed: int, names: Sequence[str]) -> None:
        """Begin as soon as the robot's clock is heard: before that its time is 0, not the present.

        Raises:
            HbvlaError: it is not heard.
        """
        self._drill, self._names = drill, list(names)
        self._random = np.random.default_rng(seed)
        drill.wait(lambda: self._now() > 0.0, "the robot's clock is heard")
        self._last, self._elapsed, self._violations = self._now(), 0.0, 0

    def elapsed(self) -> float:
        """Seconds of the robot's time since the beginning; leaps back are left out."""
        now = self._now()
        self._elapsed, self._last = self._elapsed + max(now - self._last, 0.0), now
        return self._elapsed

    def _now(self) -> float:
        return float(self._drill.node.get_clock().now().nanoseconds) * 1e-9

    def run(self, seconds: float) -> None:
        """Report faults and whatever else happens until so much of the robot's time is over.

        Raises:
            HbvlaError: a process ended that nobody ended.
        """
        for name in self._order():
            self._operate(float(self._random.uniform(*_REST)))
            if self.elapsed() >= seconds:
                return
            self._bring_about(KINDS[name])
            self._tell_violations(name)

    def _order(self) -> Iterator[str]:
        """Every fault once in a random order, then again."""
        while True:
            for index in self._random.permutation(len(self._names)):
                yield self._names[index]

    def _operate(self, seconds: float) -> None:
        """Let the arms work; where they stop of themselves, say so and set them going again."""
        end = self.elapsed() + seconds
        while self.elapsed() < end:
            time.sleep(_TURN)
            stopped = [self._drill.recorder.of(name)[-1].message for name in (GUARD, ARMS)
                       if self._drill.recorder.of(name)]  # fmt: skip
            reasons = [text for text in stopped if text.startswith('stopped')]
            if reasons:
                report('unasked stop', at=self.elapsed(), reason=reasons[0])
                self._drill.set_in_motion()
        self._tell_violations('normal operation')

    def _bring_about(self, kind: Kind) -> None:
        at, hold, seconds = self.elapsed(), None, None
        try:
            outcome = self._drill.rehearse(kind)
            hold = dataclasses.asdict(outcome.hold)
            in_time = outcome.hold.in_time
            seconds = self._drill.recover(kind)
            verdict, text = ('as specified', '') if in_time else ('late', '')
        except Undecided as error:
            verdict, text = 'undecided', str(error)
        except HbvlaError as error:
            self._drill.cast.check()
            verdict, text = 'not as specified', str(error)
            self._drill.end(kind)
        report(
            'fault', name=kind.name, at=at, verdict=verdict, text=text, hold=hold,
            latched=kind.latched, recovery=seconds,
        )  # fmt: skip
        self._drill.set_in_motion()

    def _tell_violations(self, during: str) -> None:
        found = list(self._drill.recorder.violations)
        for one in found[self._violations :][:_MOST_TOLD]:
            report('violation', during=during, kind=one.kind, text=one.text, at=self.elapsed())
        self._violations = len(found)

    def summary(self) -> dict[str, Any]:
        """What was seen on the wire, of each arm."""
        checks = self._drill.recorder.checks
        return {
            'seconds': self.elapsed(),
            'violations': len(self._drill.recorder.violations),
            'wire': [
                {
                    'arm': check.profile.arms[check.arm].name,
                    'commands': check.count,
                    'lost': check.lost,
                    'widest_step': check.widest,
                }
                for check in checks
            ],
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; 0 when the time is over, 2 after an error."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument('--folder', type=Path, required=True, help='for profile and logs')
    parser.add_argument('--minutes', type=float, required=True, help="of the robot's time")
    parser.add_argument('--time-scale', type=float, required=True)
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('--faults', nargs='+', choices=list(KINDS), required=True)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with on_stage(options.folder, options.time_scale) as drill:
            memory = MemoryTrack(lambda: drill.cast.nodes() | {NAME: os.getpid()})
            drill.set_in_motion()
            report('ready')
            soak = Soak(drill, options.seed, options.faults)
            try:
                soak.run(60.0 * options.minutes)
            finally:
                growths = memory.close()
            report(
                'done', **soak.summary(),
                memory=[{**dataclasses.asdict(one), 'grows': one.grows} for one in growths],
            )  # fmt: skip
    except HbvlaError as error:
        report('error', message=str(error))
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
