# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Judging what was seen on the command topics of a robot: limits, steps, and when the arms held.

Without ROS and without a clock of its own. All times are in s on the recorder's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]

# Kinds of violations.
FINITE, LIMIT, STEP, FORM = 'not finite', 'position limit', 'velocity limit', 'wrong message'
# Numbers went through the units of a message and back.
_ROUNDING = 1e-6
# More messages than these are not missing: somebody else began to publish.
_MOST_MISSING = 50
# A canary's beats are a period apart; what is beyond that by less than this is the scheduler's.
CANARY_PERIOD, _JITTER = 0.02, 0.03


@dataclass(frozen=True, eq=False)
class Command:
    """One message on a command topic.

    Attributes:
        received: when the recorder got it.
        sent: when it was published, by its stamp.
        number: how many its publisher had sent by then.
        pose: (n + 1,) joints in rad and the gripper's ratio.
    """

    received: float
    sent: float
    number: int
    pose: Vector


@dataclass(frozen=True)
class Violation:
    """Something on the wire that must never be there; ``at`` is when it was received."""

    kind: str
    text: str
    at: float


@dataclass
class WireCheck:
    """Looks at every command of one arm as it comes.

    A command may be one control period of motion away from the one before it, or so many periods
    as lie between the two: by the publisher's own count where messages were lost on the way,
    where another publisher took over by their stamps.

    Attributes:
        profile: limits and rate.
        arm: which of its arms.
        time_scale: seconds of the robot's time a second.
        count: commands so far.
        lost: commands that were published and did not arrive.
        widest: the largest step so far, as a share of what was allowed.
    """

    profile: RobotProfile
    arm: int
    time_scale: float = 1.0
    count: int = 0
    lost: int = 0
    widest: float = 0.0
    _last: Command | None = field(default=None, repr=False)
    _other: Vector | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Take the arm's part of the limits."""
        split = self.profile.split
        self._lower, self._upper = split(self.profile.lower), split(self.profile.upper)
        self._velocity = split(self.profile.velocity)
        self._names = self.profile.arms[self.arm].names

    def add(self, command: Command) -> list[Violation]:
        """What is wrong with a command, nothing if all is well."""
        self.count += 1
        last, self._last = self._last, command
        pose, arm = command.pose, self.arm
        if not np.isfinite(pose).all():
            self._last = last
            return [self._violation(FINITE, int(np.argmin(np.isfinite(pose))), command, 'is')]
        lower, upper = self._lower[arm] - _ROUNDING, self._upper[arm] + _ROUNDING
        outside = np.flatnonzero((pose < lower) | (pose > upper))
        found = [self._violation(LIMIT, int(i), command, 'is sent to') for i in outside]
        if last is None:
            return found
        allowed = self._velocity[arm] * self._periods(last, command) / self.profile.control_rate
        start = last.pose
        if self._other is not None and (np.abs(pose - self._other) <= allowed).all():
            start = self._other
        self._other = None
        share = np.abs(pose - start) / allowed
        self.widest = max(self.widest, float(share.max()))
        for i in np.flatnonzero(np.abs(pose - start) > allowed + _ROUNDING):
            moved = (
                f'moved by {pose[i] - start[i]:.4g}, {share[i]:.2f} of what is allowed, in '
                f'{command.sent - last.sent:.3f} s, as message {command.number} after '
                f'{last.number}, to'
            )
            found.append(self._violation(STEP, int(i), command, moved))
        return found

    def somebody_else(self, pose: Vector) -> None:
        """Another program sent the arm to a pose (n + 1,): the next step may begin there.

        What it sends is not judged, and as long as both send, ours may also go on where it was.
        """
        self._other = pose

    def _periods(self, last: Command, command: Command) -> int:
        missing = command.number - last.number - 1
        if 0 <= missing < _MOST_MISSING:
            self.lost += missing
            return missing + 1
        elapsed = (command.sent - last.sent) * self.time_scale
        return max(1, round(elapsed * self.profile.control_rate))

    def _violation(self, kind: str, index: int, command: Command, what: str) -> Violation:
        return Violation(
            kind, f'{self._names[index]} {what} {command.pose[index]:.6g}', command.received
        )


def last_motion(commands: Sequence[Command], begin: float, end: float) -> float | None:
    """When the last command between two times came that is not the one before it again.

    Args:
        commands: of one arm, in the order of their receipt.
        begin: nothing that came before counts.
        end: nothing that came after counts.

    Returns:
        Its time; None if none of them moved the arm.
    """
    found = None
    for before, command in zip(commands[:-1], commands[1:], strict=True):
        moved = np.abs(command.pose - before.pose).max() > _ROUNDING
        if moved and begin < command.received <= end:
            found = command.received
    return found


@dataclass(frozen=True)
class Beat:
    """One message of the canary, a process that does nothing but to publish at a steady rate.

    Attributes:
        number: how many it had sent by then.
        sent: when it was published.
        received: when the recorder got it.
    """

    number: int
    sent: float
    received: float


def stood_still(beats: Sequence[Beat], begin: float, end: float) -> float:
    """Seconds between two times in which the machine provably let somebody get no further.

    That is when the canary, which only sleeps and publishes, came late to its own beat, or the
    recorder late to read it. Silence of the canary proves nothing: it has to be heard before,
    after, and without a gap in its count.

    Raises:
        HbvlaError: the canary's beats do not cover the time.
    """
    if not beats or beats[0].sent > begin or beats[-1].sent < end:
        raise HbvlaError('the canary was not heard all the time: nothing is known of the machine')
    # What was lost at another time is of no matter.
    from_here = max(i for i, beat in enumerate(beats) if beat.sent <= begin)
    beats = beats[from_here : 1 + min(i for i, beat in enumerate(beats) if beat.sent >= end)]
    numbers = np.array([beat.number for beat in beats])
    if (np.diff(numbers) != 1).any():
        raise HbvlaError('beats of the canary were lost: nothing is known of the machine')
    spans = [
        (before.sent + CANARY_PERIOD, beat.sent)
        for before, beat in zip(beats[:-1], beats[1:], strict=True)
    ]
    spans += [(beat.sent, beat.received) for beat in beats]
    late = sorted(span for span in spans if span[1] - span[0] > _JITTER)
    total, reached = 0.0, begin
    for first, last in late:
        first, last = max(first, reached), min(last, end)
        if last > first:
            total, reached = total + last - first, last
    return total


@dataclass(frozen=True)
class Hold:
    """How long arms went on after the last valid input.

    Attributes:
        seconds: from the last valid input to the last command that moved an arm; 0 if none did.
        standstill: how much of that the machine provably let one of those involved wait.
        together: the same, of all those involved added up: what one notices, another acts upon.
        bound: what is allowed.
    """

    seconds: float
    standstill: float
    together: float
    bound: float

    @property
    def in_time(self) -> bool:
        """Whether the bound was kept in the time that the machine gave."""
        return self.seconds - self.standstill <= self.bound

    @property
    def tells(self) -> bool:
        """Whether it shows anything, well or ill.

        What was kept without any allowance was kept. Otherwise a machine on which the nodes waited
        for half of the bound or more has to be asked again, whatever came out.
        """
        return self.seconds <= self.bound or self.together <= 0.5 * self.bound


def hold_after(
    arms: Sequence[Sequence[Command]],
    beats: Sequence[Beat],
    valid: float,
    bound: float,
    until: float,
    waited: Callable[[float, float], Sequence[float]],
    may_fall_silent: bool = False,
) -> Hold:
    """Measure the hold of all arms together.

    Args:
        arms: commands of each arm in the order of their receipt.
        beats: of the canary.
        valid: when the last valid input came.
        bound: what is allowed from then to the hold, s.
        until: to when the recording is looked at.
        waited: seconds between two times that each node waited for a processor.
        may_fall_silent: whether a hold need not be the same command again and again.

    Raises:
        HbvlaError: the canary's beats do not cover the time, or an arm was not commanded before
            ``valid``, or was not after the bound.
    """
    for index, commands in enumerate(arms):
        times = [command.received for command in commands]
        if not times or times[0] > valid:
            raise HbvlaError(f'arm {index}: no commands before the hold: nothing can be measured')
        if not may_fall_silent and not any(valid + bound < t <= until for t in times):
            raise HbvlaError(f'arm {index}: no longer commanded')
    moved = [last_motion(commands, valid, until) for commands in arms]
    last = max([time for time in moved if time is not None], default=valid)
    waits = [stood_still(beats, valid, last), *waited(valid, last)]
    return Hold(last - valid, max(waits), sum(waits), bound)


def is_moving(commands: Sequence[Command], begin: float, end: float) -> bool:
    """Whether most commands between two times moved the arm, and there were some."""
    steps = [
        float(np.abs(command.pose - before.pose).max())
        for before, command in zip(commands[:-1], commands[1:], strict=True)
        if begin < command.received <= end
    ]
    return len(steps) > 2 and float(np.mean(np.array(steps) > _ROUNDING)) > 0.75
