# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the safety stage remembers from one command to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Slower than this is at rest, rad/s or ratio/s: what rounding leaves of a velocity of 0.
_AT_REST = 1e-9


@dataclass(frozen=True)
class Interventions:
    """At how many commands the stage had to act, by kind; several kinds may meet in one.

    Attributes:
        not_finite: a target held NaN or infinity, both arms held.
        position: a target was outside the limits, or so fast towards one that it had to slow down.
        velocity, acceleration, jerk: a target asked for more than this cap. A joint counts for the
            first of them that it exceeds.
        lag: a joint was farther from its command than ``lag_stop`` while following targets.
        ramp: the slow ramp after a start far from the target.
    """

    not_finite: int = 0
    position: int = 0
    velocity: int = 0
    acceleration: int = 0
    jerk: int = 0
    lag: int = 0
    ramp: int = 0

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(vars(self).values())

    def plus(self, **kinds: bool) -> Interventions:
        """These and one more of each kind that is true."""
        return replace(self, **{name: getattr(self, name) + bool(kinds[name]) for name in kinds})


@dataclass(frozen=True)
class SafetyState:
    """What the stage remembers; a new one forgets everything but where the arms are measured.

    Attributes:
        command: the last command (A,), None before the first.
        time: when it was due, in s; half a period around when it was given.
        held: the pose (A,) that is being held, None while a target is followed.
        interventions: counters.
        velocity: the last command's velocity (A,) in 1/s, None is at rest.
        acceleration: its acceleration (A,) in 1/s^2, None is none.
        path: positions (rows, A) of the commands that would follow the last one, a period apart,
            if the arms were to come to rest: inside all limits, the last row at rest. None is
            the last command itself.
        target: the last target (A,) inside the limits, None while holding.
        drift: how fast (A,) targets moved last, in 1/s.
        ramping: a start far from the target is being approached slowly.
        lagging: for how long in s a joint has been too far from its command.
        clamped: for how long in s targets have been changed without interruption.
        stop: why the arms may not move on, empty while they may; only a new state clears it.
    """

    command: Vector | None = None
    time: float = 0.0
    held: Vector | None = None
    interventions: Interventions = field(default_factory=Interventions)
    velocity: Vector | None = None
    acceleration: Vector | None = None
    path: Vector | None = None
    target: Vector | None = None
    drift: Vector | None = None
    ramping: bool = False
    lagging: float = 0.0
    clamped: float = 0.0
    stop: str = ''

    @property
    def at_rest(self) -> bool:
        """Whether the last command did not move from the one before."""
        return self.velocity is None or bool((np.abs(self.velocity) <= _AT_REST).all())

    @property
    def rest(self) -> Vector | None:
        """The pose (A,) in which the arms can come to rest soonest; None before a command."""
        return self.command if self.path is None else self.path[-1]
