# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Rehearsing faults: bring one about, watch the arms hold, end it, watch what comes after."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from std_srvs.srv import Trigger

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.starvation import Starvation
from hbvla_ros.evaluation.wire import Hold, hold_after, is_moving, last_motion
from hbvla_ros.nodes.faults import kinds
from hbvla_ros.nodes.faults.cast import ARMS, GUARD, POLICY, Cast
from hbvla_ros.nodes.faults.deeds import FLOOD_SECONDS, Deeds
from hbvla_ros.nodes.faults.kinds import Kind
from hbvla_ros.nodes.faults.last_input import HOLDING, LastInput
from hbvla_ros.nodes.faults.recorder import Recorder, Report

# Only what fails waits for so long, s; a machine with other work may need much of it.
PATIENCE = 120.0
# The arms must have moved for so long before a fault.
_MOVING = 0.3
# What a machine that stands still spoils is done again so often.
_ATTEMPTS = 8
_POLL = 0.01
# A node that waited for so long may well have been taken for dead.
_STARVED = 0.15
# The nodes know a publisher at most so long before this process does.
_NOTICED_BEFORE = 1.0
# What the safety stage counts while it leads the arms to where the policy wants them.
_CAUGHT_UP = ('ramp', 'velocity')


class Undecided(HbvlaError):
    """On this machine nothing can be measured at present."""


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        kind: which.
        hold: how long the arms went on.
        begun: when the fault began, s on the monotonic clock.
        reasons: reports that named it.
        attempts: how often it had to be tried on a machine that stood still.
    """

    kind: Kind
    hold: Hold
    begun: float
    reasons: tuple[Report, ...]
    attempts: int


class Drill:
    """Rehearses faults with a cast of processes.

    Args:
        node: on whose behalf; somebody else has to spin it.
        profile: the robot.
        cast: the processes.
        time_scale: seconds of the robot's time a second.

    Attributes:
        recorder: everything that was seen.
        node, profile, cast: as given.
    """

    def __init__(
        self, node: Node, profile: RobotProfile, cast: Cast, time_scale: float = 1.0
    ) -> None:
        """Listen."""
        self.node, self.profile, self.cast = node, profile, cast
        self.recorder = Recorder(node, profile, time_scale)
        self._deeds = Deeds(node, cast)
        self._last_input = LastInput(node, self.recorder, self.wait)
        self._resets = {
            name: node.create_client(Trigger, f'{name}/reset') for name in (GUARD, ARMS)
        }
        self._starvation = Starvation(cast.nodes)

    def close(self) -> None:
        """End what it runs besides the processes of the cast."""
        self._starvation.close()

    def wait(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition.

        Raises:
            HbvlaError: it did not come true, or a process has ended.
        """
        end = time.monotonic() + patience
        while not condition():
            self.cast.check()
            if time.monotonic() > end:
                raise HbvlaError(f'not within {patience:.0f} s: {what}{self._situation()}')
            time.sleep(_POLL)

    def now(self) -> float:
        """Time in s on the recorder's clock."""
        return time.monotonic()

    def _situation(self) -> str:
        said = [self.recorder.of(name)[-1:] for name in (GUARD, ARMS, POLICY)]
        return ''.join(f'; {one.node} says {one.message!r}' for one in sum(said, []))

    def moves(self, seconds: float = _MOVING) -> bool:
        """Whether all arms moved during the last so many seconds."""
        now = time.monotonic()
        return self._moved(now - seconds, now)

    def _moved(self, begin: float, end: float) -> bool:
        return all(is_moving(list(one), begin, end) for one in self.recorder.commands)

    def _follow(self) -> bool:
        """Whether all arms move, and as the policy wants it: not still on the way to its motion."""
        said = self.recorder.of(ARMS)[-2:]
        counts = [[one.values.get(f'clamped {kind}') for kind in _CAUGHT_UP] for one in said]
        return self.moves() and len(said) == 2 and counts[0] == counts[1]

    def reset(self) -> None:
        """End all stops; the arm node's cannot end before the guard's."""
        self.wait(lambda: self._is_reset(GUARD) and self._is_reset(ARMS), 'all is reset')

    def _is_reset(self, name: str) -> bool:
        client = self._resets[name]
        if not client.service_is_ready():
            return False
        answer = client.call_async(Trigger.Request())
        end = time.monotonic() + 2.0
        while not answer.done() and time.monotonic() < end:
            time.sleep(_POLL)
        return answer.done() and bool(answer.result().success)

    def set_in_motion(self) -> None:
        """Have everything run, without faults or stops, and the arms follow the policy."""
        self._deeds.ask_nothing()
        self.cast.start()
        self.wait(self._follow_or_reset, 'the arms follow the policy')

    def _follow_or_reset(self) -> bool:
        """Whether the arms follow; where a stop is in the way, end it first.

        On a machine that stands still nodes find each other dead, and are right.
        """
        if self._follow():
            return True
        if self._stopped(-np.inf):
            self.reset()
        return False

    def rehearse(self, kind: Kind) -> Outcome:
        """Bring a fault about and measure; the fault is still there afterwards.

        Raises:
            Undecided: nothing could be measured.
            HbvlaError: nobody gave the reason, or a process ended.
        """
        doubt = ''
        for attempt in range(1, _ATTEMPTS + 1):
            self.set_in_motion()
            self.recorder.intruded = np.inf
            begun = self._deeds.begin(kind)
            valid = self._last_input.of(kind, begun)
            until = valid + kind.bound + HOLDING
            self.wait(partial(self._heard, until), 'the recording is complete')
            try:
                hold = self._hold(kind, valid, until)
                doubt = self._doubt(kind, hold, valid, begun)
            except HbvlaError as error:
                doubt = str(error)
            if not doubt:
                return Outcome(kind, hold, begun, self._reasons(kind, begun), attempt)
            self.end(kind)
        raise Undecided(f'{kind.name}: nothing to be told from {_ATTEMPTS} attempts: {doubt}')

    def _heard(self, until: float) -> bool:
        beats = self.recorder.beats
        return bool(beats) and beats[-1].sent > until

    def _hold(self, kind: Kind, valid: float, until: float) -> Hold:
        arms = [list(one) for one in self.recorder.commands]
        # To a second writer the wire is left, sooner or later: two wills shake the arms.
        may_fall_silent = kind.deed == kinds.INTRUDE
        beats, waited = list(self.recorder.beats), self._starvation.waited
        return hold_after(arms, beats, valid, kind.bound, until, waited, may_fall_silent)

    def _doubt(self, kind: Kind, hold: Hold, valid: float, begun: float) -> str:
        """Why an attempt shows nothing, well or ill; empty if it does."""
        if not hold.tells:
            return (
                f'the arms held after {hold.seconds:.2f} s, in which the nodes waited '
                f'{hold.together:.2f} s for a processor'
            )
        if not self._moved_before(kind, begun, valid):
            return 'the arms did not move before'
        # A chunk that was made between two instructions of a flood is a good one; but the next
        # instruction comes sooner than any chunk, unless this process stood still.
        end = begun + FLOOD_SECONDS
        passed = [c for c in list(self.recorder.chunks) if c.rows and begun < c.received < end]
        return 'the flood stopped for a while' if kind.deed == kinds.FLOOD and passed else ''

    def _moved_before(self, kind: Kind, begun: float, valid: float) -> bool:
        """Whether all arms moved until the fault, so that there was something to hold."""
        if kind.deed != kinds.INTRUDE:
            return self._moved(valid - _MOVING, valid)
        # The nodes may know of a second writer before this one does, and hold by then.
        for one in map(list, self.recorder.commands):
            last = last_motion(one, max(begun, valid - _NOTICED_BEFORE), valid) or valid
            if not is_moving(one, last - _MOVING, last):
                return False
        return True

    def _reasons(self, kind: Kind, begun: float) -> tuple[Report, ...]:
        """Reports that name the reason; waits for the first."""
        seen = self.recorder
        earlier = [one for one in seen.of(kind.reporter) if one.received <= begun]
        before = earlier[-1].values if earlier else {}

        def found() -> tuple[Report, ...]:
            return tuple(
                one
                for one in seen.of(kind.reporter, begun)
                if kind.is_named(one.message, one.values, before)
            )

        what = f'{kind.reporter} says {kind.reason or kind.count!r} on /diagnostics'
        self.wait(found, what, 20.0)
        return found()

    def end(self, kind: Kind) -> None:
        """End the fault if it lasts, and no more: whether the arms go on is another matter."""
        self._deeds.end(kind)

    def recover(self, kind: Kind) -> float:
        """End the fault and see the arms go on, after a reset if they are to wait for one.

        Returns:
            Seconds from the end of the fault, or the reset, to motion.

        Raises:
            Undecided: the machine kept them from it.
            HbvlaError: they do not go on, or they do without a reset that they need.
        """
        self.end(kind)
        if kind.latched:
            ended = time.monotonic()
            self.wait(lambda: self._says_stopped(ended), 'arm_node says that it is stopped')
            time.sleep(_MOVING + HOLDING)
            if self._moved(time.monotonic() - _MOVING, time.monotonic()):
                raise HbvlaError(f'{kind.name}: the arms move although nobody called ~/reset')
            self.reset()
        ended = time.monotonic()
        self.wait(lambda: self._went_on(ended) or self._stopped(ended), 'the arms move')
        if not self._went_on(ended):
            self._refuse_stop(kind, self._stopped(ended), ended)
        return time.monotonic() - ended

    def _went_on(self, since: float) -> bool:
        return time.monotonic() - since > _MOVING and self.moves()

    def _stopped(self, since: float) -> str:
        """Why guard or arm node have stopped since a time, empty if they have not."""
        newest = [one for name in (GUARD, ARMS) for one in self.recorder.of(name, since)[-1:]]
        return next((one.values['stop'] for one in newest if one.values['stop']), '')

    def _refuse_stop(self, kind: Kind, reason: str, since: float) -> None:
        """A stop that the fault does not explain: the machine does, or nothing."""
        waited = max(self._starvation.waited(since, time.monotonic()), default=0.0)
        text = f'{kind.name}: stopped anew while the arms were to go on: {reason}'
        if waited > _STARVED:
            raise Undecided(f'{text}; a node waited {waited:.2f} s for a processor')
        raise HbvlaError(text)

    def _says_stopped(self, since: float) -> bool:
        return any(one.values['mode'] == 'stopped' for one in self.recorder.of(ARMS, since))
