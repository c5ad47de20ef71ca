# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What stands on what, and which box to move next, for the task of stacking.

Boxes are numbered as in ``Tower.positions``. Everything follows from where the boxes are now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import Prop

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

CONTACT = 0.006  # m, a smaller gap is none
CENTRED = 0.026  # m, from middle to middle: stands on it, with its weight well inside the face
LEVEL = 0.95  # cosine of the tilt at which a box still settles on its face
OVERLAP = 0.05  # m, from middle to middle: further away nothing lies on it
REACH_OVER = 0.085  # m an arm reaches beyond the middle of the table at every height it needs
ROOM = 0.10  # m from middle to middle that leaves the fingers room
_FREE_X = (-0.24, -0.16, -0.08, 0.0, 0.08, 0.16, 0.24)
_FREE_Y = (0.40, 0.50, 0.60)

Place = tuple[float, float, float]


@dataclass(frozen=True)
class Move:
    """Box ``number`` belongs with the middle of its lower face at ``place``, m."""

    number: int
    place: Place


@dataclass(frozen=True, eq=False)
class Tower:
    """Where the boxes are.

    Attributes:
        positions: (n, 3) middles, m.
        rotations: (n, 3, 3) turns; columns are the boxes' axes in the world.
        sizes: (n, 3) half sizes, m.
        halves: (n,) how far each box reaches above its middle as it lies now, m.
    """

    positions: NDArray[np.float64]
    rotations: NDArray[np.float64]
    sizes: NDArray[np.float64]
    halves: NDArray[np.float64]

    @classmethod
    def seen(cls, view: SceneView, props: Sequence[Prop]) -> Tower:
        """The boxes ``props``, each of one part, as they are now."""
        rotations = np.array([view.rotation(prop.name) for prop in props])
        sizes = np.array([prop.parts[0].size for prop in props])
        halves = np.einsum('na,na->n', np.abs(rotations[:, 2]), sizes)
        return cls(view.positions([prop.name for prop in props]), rotations, sizes, halves)

    def bottom(self, number: int) -> float:
        """Height of a box's lowest point, m."""
        return float(self.positions[number, 2] - self.halves[number])

    def top(self, number: int) -> float:
        """Height of a box's highest point, m."""
        return float(self.positions[number, 2] + self.halves[number])

    def tilted(self, number: int) -> bool:
        """Whether no face of a box is level, so that it would not stand."""
        return float(np.abs(self.rotations[number, 2]).max()) < LEVEL

    def apart(self, first: int, second: int) -> float:
        """Horizontal distance between two middles, m."""
        return math.dist(self.positions[first, :2], self.positions[second, :2])

    def others(self, number: int) -> list[int]:
        """All boxes but one."""
        return [other for other in range(len(self.positions)) if other != number]

    def stands_on(self, upper: int, lower: int) -> bool:
        """Whether one box stands on another, centred well enough to stay."""
        gap = self.bottom(upper) - self.top(lower)
        return abs(gap) < CONTACT and self.apart(upper, lower) < CENTRED

    def levels(self, order: Sequence[int]) -> int:
        """How many boxes of ``order``, lowest first, stand as asked; 0 if the lowest hangs."""
        if self.bottom(order[0]) > CONTACT:
            return 0
        count = 1
        for lower, upper in zip(order, order[1:], strict=False):
            if not self.stands_on(upper, lower):
                break
            count += 1
        return count

    def lying_on(self, number: int) -> list[int]:
        """Boxes that lie on a box, well or badly, highest first."""
        found = []
        for other in self.others(number):
            reach = self.halves[other] + self.halves[number]
            above = self.positions[other, 2] - self.positions[number, 2]
            if self.apart(other, number) < OVERLAP and 0.6 * reach < above < reach + 0.012:
                found.append(other)
        return sorted(found, key=lambda other: -float(self.positions[other, 2]))


def next_move(tower: Tower, order: Sequence[int]) -> Move | None:
    """What to do next to build ``order``, lowest box first; None when the tower stands.

    Whatever lies where it must not goes to a free place on the table first.
    """
    count = tower.levels(order)
    if count == 0:
        return _cleared(tower, order[0])
    lower = order[count - 1]
    upper = order[count] if count < len(order) else None
    for base in (lower,) if upper is None else (upper, lower):
        for other in tower.lying_on(base):
            if other != upper:
                return _cleared(tower, other)
    if upper is None:
        return None
    x, y, _ = tower.positions[lower]
    return Move(upper, (float(x), float(y), tower.top(lower)))


def _cleared(tower: Tower, number: int) -> Move:
    """Put a box on the table, or first the one that lies on it."""
    above = tower.lying_on(number)
    number = above[0] if above else number
    return Move(number, free_place(tower, number))


def free_place(tower: Tower, number: int, arm: int | None = None) -> Place:
    """The free place on the table that is nearest to a box; its own where that is free.

    Args:
        tower: the boxes.
        number: which one to put down.
        arm: 0 or 1, only places this arm reaches; None for any.
    """
    here = (float(tower.positions[number, 0]), float(tower.positions[number, 1]))
    candidates = [(x, y) for x in _FREE_X for y in _FREE_Y]
    if abs(here[0]) < 0.27 and 0.36 < here[1] < 0.64:
        candidates.append(here)
    x, y = _nearest_free(tower, number, here, [
        spot for spot in candidates if arm is None or reaches(arm, spot[0])
    ], ROOM)  # fmt: skip
    return x, y, 0.0


def relay_place(tower: Tower, number: int, place: Place) -> Place:
    """A free place that both arms reach, near ``place``, for handing a box across the table."""
    middle = [(x, y) for x in (-0.04, 0.0, 0.04) for y in _FREE_Y]
    x, y = _nearest_free(tower, number, (place[0], place[1]), middle, ROOM - 0.015)
    return x, y, 0.0


def _nearest_free(
    tower: Tower,
    number: int,
    wanted: tuple[float, float],
    candidates: list[tuple[float, float]],
    room: float,
) -> tuple[float, float]:
    others = tower.positions[tower.others(number), :2]

    def is_free(spot: tuple[float, float]) -> bool:
        return float(np.linalg.norm(others - spot, axis=1).min()) > room

    free = [spot for spot in candidates if is_free(spot)] or candidates
    return min(free, key=lambda spot: math.dist(spot, wanted))


def reaches(arm: int, x: float) -> bool:
    """Whether arm 0 (left) or 1 (right) reaches that far across the table, x in m."""
    return (x if arm == 1 else -x) > -REACH_OVER
