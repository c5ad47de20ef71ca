# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Ways to rest and ways to a target for joints whose velocity, acceleration and jerk are capped.

Everything here counts in control periods: a velocity is the step from one command to the next, an
acceleration the change of that step, a jerk the change of that change. These are the finite
differences of the commands themselves, so a cap that holds here holds on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Below this a difference of positions is rounding, rad or ratio.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Caps:
    """Caps (A,) of each joint's motion per control period.

    Attributes:
        velocity: largest step.
        acceleration: largest change of the step.
        jerk: largest change of that change.
        rows: periods after which every joint can be at rest, whatever it did within the caps.
    """

    velocity: Vector
    acceleration: Vector
    jerk: Vector
    rows: int

    @staticmethod
    def of(velocity: Vector, acceleration: Vector, jerk: Vector, period: float) -> Caps:
        """Caps per period (s) of limits per second; infinite ones become ones that never bind."""
        step = np.maximum(velocity * period, _ROUNDING)
        change = np.minimum(acceleration * period**2, 2.0 * step)
        bend = np.minimum(jerk * period**3, 2.0 * change)
        # The worst: twice the velocity, as against a target that comes towards it, still rising.
        longest = _periods_to_rest(2.0 * step + change, -change, change, bend)
        return Caps(step, change, bend, int(np.ceil(longest.max())) + 4)


def ways_to_rest(caps: Caps, velocity: Vector, acceleration: Vector) -> Vector:
    """Steps (caps.rows, C) of quick ways to rest from velocities and accelerations (C,).

    C is a multiple of the caps' A: several motions of all joints side by side. Acceleration and
    jerk stay inside the caps; velocity does if it can. The way is the mean of two: one that lets
    the acceleration go at once and one that brakes as hard as it can, weighted so that velocity and
    acceleration vanish in the same period.
    """
    copies = len(velocity) // len(caps.velocity)
    change, bend = np.tile(caps.acceleration, copies), np.tile(caps.jerk, copies)
    index = np.arange(1.0, caps.rows + 1.0)[:, None]
    letting_go = np.maximum(np.ceil(np.abs(acceleration) / bend), 1.0)
    left = velocity + acceleration * (letting_go - 1.0) / 2.0
    sign = np.where(left < 0.0, -1.0, 1.0)
    # From here on brakes are positive: what they were, and what they have to add up to.
    before, needed = -sign * acceleration, sign * velocity
    gentle_sum = before * (letting_go - 1.0) / 2.0
    periods, hard_sum = _shortest(needed, before, letting_go, change, bend)
    gentle = before * np.maximum(1.0 - index / letting_go, 0.0)
    release = np.maximum(periods + 1.0 - index, 0.0) * bend
    hard = np.minimum(np.minimum(before + index * bend, change), release)
    span = hard_sum - gentle_sum
    share = np.where(span > 0.0, (needed - gentle_sum) / np.where(span > 0.0, span, 1.0), 0.0)
    return velocity + np.cumsum(-sign * (gentle + share * (hard - gentle)), axis=0)


def pursue(
    caps: Caps, velocity: Vector, acceleration: Vector, gap: Vector, drift: Vector, fastest: Vector
) -> Vector:
    """The next acceleration (A,) on the way to a target that moves evenly.

    It goes as hard as it can while the way to rest, seen from the target, still ends before it,
    and brakes when it would not.

    Args:
        caps: of the joints.
        velocity: that of the last command (A,).
        acceleration: that of the last command (A,).
        gap: distance (A,) from the last command to the present target.
        drift: the target's velocity (A,).
        fastest: velocity cap (A,) of this step.
    """
    relative, gap = velocity - drift, gap - drift
    most = np.minimum(acceleration + caps.jerk, caps.acceleration)
    least = np.maximum(acceleration - caps.jerk, -caps.acceleration)
    up = np.clip(fastest - velocity, least, most)
    down = np.clip(-fastest - velocity, least, most)
    starts = np.concatenate([relative, relative + up, relative + down])
    ways = ways_to_rest(caps, starts, np.concatenate([acceleration, up, down]))
    ends = np.split(ways.sum(axis=0), 3)
    braked, brake = ends[0], ways[0, : len(gap)] - relative
    upwards = gap > braked
    driven = np.where(upwards, relative + up + ends[1], relative + down + ends[2])
    span = driven - braked
    steep = np.abs(span) > _ROUNDING
    share = np.clip(np.where(steep, (gap - braked) / np.where(steep, span, 1.0), 0.0), 0.0, 1.0)
    return brake + share * (np.where(upwards, up, down) - brake)


def _periods_to_rest(needed: Vector, before: Vector, change: Vector, bend: Vector) -> Vector:
    """Time to rest in periods, not rounded, for brakes that already act with ``before``."""
    speed = np.maximum(needed + before**2 / (2.0 * bend), 0.0)
    peak = np.sqrt(np.maximum(bend * needed + before**2 / 2.0, 0.0))
    ramps = (2.0 * change - before) / bend
    flat = ramps + (speed - change**2 / bend) / change
    return np.where(peak > change, flat, (2.0 * peak - before) / bend)


def _shortest(
    needed: Vector, before: Vector, letting_go: Vector, change: Vector, bend: Vector
) -> tuple[Vector, Vector]:
    """Fewest periods in which hard braking reaches ``needed``, and what it then adds up to."""
    near = np.floor(_periods_to_rest(needed, before, change, bend))
    candidates = np.maximum(near + np.arange(-2.0, 4.0)[:, None], letting_go - 1.0)
    crossing = (candidates + 1.0 - before / bend) / 2.0
    rising = np.floor(np.minimum(crossing, (change - before) / bend))
    rising = np.clip(rising, 0.0, candidates)
    falling = np.minimum(np.floor(change / bend), candidates - rising)
    flat = candidates - rising - falling
    sums = rising * before + change * flat
    sums += bend * (rising * (rising + 1.0) + falling * (falling + 1.0)) / 2.0
    first = np.argmax(sums >= needed, axis=0)
    # Rounding may hide that even the longest is enough; it is by construction.
    first = np.where(sums[-1] < needed, len(sums) - 1, first)
    columns = np.arange(len(needed))
    return candidates[first, columns], sums[first, columns]
