# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One step of all joints towards a target, such that they can always come to rest in time.

With every command there is a path to rest that keeps all limits: positions, velocity, acceleration
and jerk. The next command starts from two paths: the rest of that one, and the wanted step with a
new way to rest behind it. All limits are linear and both paths start in the same state, so every
mean of the two keeps each limit that both keep, and the mean that leans furthest towards the wanted
step without breaking one is a path to rest again. Braking is therefore always possible, whatever
the targets are: at worst the old path is followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.braking import Caps, pursue, ways_to_rest

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Excess over a limit below this is rounding, rad or ratio.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Limits:
    """Position limits (A,) and the caps of the motion between them."""

    lower: Vector
    upper: Vector
    caps: Caps


@dataclass(frozen=True)
class Motion:
    """All joints at one command; velocities and accelerations per period.

    Attributes:
        position, velocity, acceleration: of the command (A,).
        path: positions (rows, A) of the commands to rest after it.
    """

    position: Vector
    velocity: Vector
    acceleration: Vector
    path: Vector

    @staticmethod
    def resting(position: Vector, rows: int) -> Motion:
        """At rest."""
        still = np.zeros_like(position)
        return Motion(position, still, still, np.tile(position, (rows, 1)))


@dataclass(frozen=True)
class Wanted:
    """What a step is wanted towards.

    Attributes:
        target: inside the position limits (A,).
        drift: the target's own velocity per period (A,).
        tracked: joints (A,) whose last command was the last target.
        velocity: cap (A,) of this step, at most the usual one.
        resting: joints (A,) that are to follow their path to rest.
    """

    target: Vector
    drift: Vector
    tracked: Mask
    velocity: Vector
    resting: Mask


@dataclass(frozen=True)
class Changes:
    """Which joints (A,) could not go to their target at once, and for which limit."""

    position: Mask
    velocity: Mask
    acceleration: Mask
    jerk: Mask


def step(limits: Limits, motion: Motion, wanted: Wanted) -> tuple[Motion, Changes]:
    """The motion one period later, and what kept it from being at the target."""
    caps, last = limits.caps, motion.position
    velocity = wanted.target - last
    acceleration = velocity - motion.velocity
    fast = np.abs(velocity) > wanted.velocity + _ROUNDING
    hard = np.abs(acceleration) > caps.acceleration + _ROUNDING
    sudden = np.abs(acceleration - motion.acceleration) > caps.jerk + _ROUNDING
    # Who has followed the target so far follows it on; who comes from elsewhere must not meet it
    # so fast that he could not stay with it.
    correction = wanted.drift - velocity
    stays = np.abs(correction) <= np.minimum(caps.acceleration, caps.jerk)
    stays &= np.abs(correction - acceleration) <= caps.jerk
    sudden |= ~(wanted.tracked | stays)
    exact = ~(fast | hard | sudden)
    if not exact.all():
        way = pursue(
            caps, motion.velocity, motion.acceleration, velocity, wanted.drift, wanted.velocity
        )
        acceleration = np.where(exact, acceleration, way)
        velocity = np.where(exact, velocity, motion.velocity + way)
    first = np.where(exact, wanted.target, last + velocity)
    steps = np.vstack([velocity, ways_to_rest(caps, velocity, acceleration)[:-1]])
    path = np.vstack([first, first + np.cumsum(steps[1:], axis=0)])
    in_position, in_velocity = _shares(limits, motion, wanted, path, steps)
    share = np.where(wanted.resting, 0.0, np.minimum(in_position, in_velocity))
    path = np.where(share >= 1.0, path, motion.path + share * (path - motion.path))
    # Only rounding is left to cut.
    path = np.clip(path, np.minimum(limits.lower, last), np.maximum(limits.upper, last))
    missed, checked = path[0] != wanted.target, ~(fast | hard | sudden)
    stopped = checked & (in_position <= in_velocity)
    changes = Changes(
        missed & stopped,
        missed & (fast | (checked & ~stopped)),
        missed & hard & ~fast,
        missed & sudden & ~(fast | hard),
    )
    return _advance(motion, path), changes


def _advance(motion: Motion, path: Vector) -> Motion:
    """The motion at the first row of a path; the path is then a row shorter and ends in rest."""
    velocity = path[0] - motion.position
    return Motion(path[0], velocity, velocity - motion.velocity, np.vstack([path[1:], path[-1:]]))


def _shares(
    limits: Limits, motion: Motion, wanted: Wanted, path: Vector, steps: Vector
) -> tuple[Vector, Vector]:
    """Share 0 .. 1 (A,) of a new path that position limits and that velocity caps allow."""
    last, old = motion.position, motion.path
    old_steps = np.diff(old, axis=0, prepend=last[None])
    # A lower cap than before binds only as far as the path to rest keeps it, too.
    fastest = np.maximum(wanted.velocity, np.abs(old_steps).max(axis=0))
    # Outside its limits a joint may not move further out, and not turn round either.
    rise = np.where(last > limits.upper, 0.0, fastest)
    fall = np.where(last < limits.lower, 0.0, fastest)
    upper, lower = np.maximum(limits.upper, last), np.minimum(limits.lower, last)
    return (
        np.minimum(_share(old, path, upper), _share(-old, -path, -lower)),
        np.minimum(_share(old_steps, steps, rise), _share(-old_steps, -steps, fall)),
    )


def _share(old: Vector, new: Vector, bound: Vector) -> Vector:
    """The largest share (A,) of ``new`` in a mean with ``old`` (rows, A) that keeps a bound."""
    excess = new - bound
    if not (excess > _ROUNDING).any():
        return np.ones_like(bound)
    room = np.maximum(bound - old, 0.0)
    over = excess > _ROUNDING
    return np.where(over, room / np.where(over, room + excess, 1.0), 1.0).min(axis=0)
