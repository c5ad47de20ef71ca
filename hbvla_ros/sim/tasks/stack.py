# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Stack two or three boxes in the order asked for.

Boxes only, because every box carries every other on whichever face it has come to lie, and what
falls does not roll away.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import Part, Prop
from hbvla_ros.sim.tasks.base import (
    Layout,
    Progress,
    Task,
    closest,
    standing_poses,
    updated_since,
)
from hbvla_ros.sim.tasks.pick_place import LIFTED, was_touched
from hbvla_ros.sim.tasks.tower import CENTRED, ROOM, Move, Tower, next_move

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

THREE_SHARE = 1 / 3  # of the episodes ask for all three boxes
AWAY = 0.075  # m between every grasp point and every box of a tower that counts
SIDE = 0.08  # m from the middle, at least, for a box that is to be moved
ACROSS = 0.06  # m beyond the middle, at most, for the lowest box: see tower.REACH_OVER


def _box(name: str, size: tuple[float, float, float], colour: tuple[float, float, float]) -> Prop:
    return Prop(name, name.replace('_', ' '), (Part('', 'box', size, colour),), size[2])


# A little larger than those of pick and place: the upper face is what forgives a policy's error.
# 4.2 cm between the fingers still leaves 1.4 cm on either side.
BOXES = (
    _box('red_cube', (0.021, 0.021, 0.021), (0.85, 0.10, 0.10)),
    _box('green_cube', (0.021, 0.021, 0.021), (0.10, 0.65, 0.20)),
    _box('blue_block', (0.028, 0.020, 0.020), (0.12, 0.30, 0.90)),
)
NAMES = tuple(prop.name for prop in BOXES)
_PAIRS = tuple(itertools.permutations(range(len(BOXES)), 2))


def instruction(order: tuple[int, ...]) -> str:
    """The sentence that asks for boxes ``order``, lowest first."""
    lowest, second, *third = (BOXES[number].phrase for number in order)
    rest = f' and then the {third[0]} on top' if third else ''
    return f'stack the {second} on the {lowest}{rest}'


@dataclass(frozen=True, eq=False)
class StackLayout(Layout):
    """``order`` holds two or three numbers of boxes, indices into ``BOXES``, lowest first."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class StackProgress(Progress):
    """``touched``: whether a gripper has been at the second box, and at the third in its turn."""

    touched: tuple[bool, bool] = (False, False)


class Stack(Task[StackLayout, StackProgress]):
    """Three boxes on the table; two or all of them are to be stacked."""

    name = 'stack'
    stages = (
        'nothing',
        'touched',
        'lifted',
        'over the one below',
        'stacked',
        'touched the third',
        'lifted the third',
        'over the second',
        'tower stands by itself',
    )
    max_seconds = 24.0
    props = BOXES

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence for each ordered pair and for each order of all three."""
        orders = (*_PAIRS, *itertools.permutations(range(len(BOXES))))
        return tuple(instruction(order) for order in orders)

    def sample(self, random: np.random.Generator) -> StackLayout:
        """Draw the order, then the places."""
        order: tuple[int, ...] = _PAIRS[int(random.integers(len(_PAIRS)))]
        if random.random() < THREE_SHARE:
            order = (*order, 3 - sum(order))
        poses = standing_poses(BOXES, _places(random, order), random.uniform(-0.2, 0.2, 3))
        return StackLayout(instruction(order), poses, order)

    def start(self, layout: StackLayout) -> StackProgress:
        """Nothing has been touched."""
        return StackProgress()

    def track(self, view: SceneView, layout: StackLayout, progress: StackProgress) -> StackProgress:
        """Count the boxes that stand as asked; the tower is done once no gripper is at it."""
        tower, tips = Tower.seen(view, BOXES), view.tips()
        count = tower.levels(layout.order)
        touched = self._touched(tower, tips, layout, progress, count)
        away = np.linalg.norm(tips[:, None] - tower.positions[list(layout.order)], axis=2) > AWAY
        done = next_move(tower, layout.order) is None and bool(away.all())
        stage = len(self.stages) - 1 if done else _stage(tower, layout.order, count, touched)
        return StackProgress(
            max(progress.best_stage, stage),
            updated_since(done, progress.done_since, view.time),
            touched,
        )

    def _touched(
        self,
        tower: Tower,
        tips: NDArray[np.float64],
        layout: StackLayout,
        progress: StackProgress,
        count: int,
    ) -> tuple[bool, bool]:
        now = [
            was_touched(tower.positions[number], layout.poses[number, :3], tips)
            for number in layout.order[1:]
        ]
        second, third = progress.touched
        return second or now[0], third or (count > 1 and now[-1])

    def target(self, view: SceneView, layout: StackLayout) -> str | None:
        """The next box to move; one that is in the way comes first."""
        move = self._move(view, layout)
        return None if move is None else NAMES[move.number]

    def goal(self, view: SceneView, layout: StackLayout) -> NDArray[np.float64] | None:
        """Where the middle of the target's lower face belongs."""
        move = self._move(view, layout)
        return None if move is None else np.array(move.place)

    def _move(self, view: SceneView, layout: StackLayout) -> Move | None:
        return next_move(Tower.seen(view, BOXES), layout.order)


def _places(random: np.random.Generator, order: tuple[int, ...]) -> NDArray[np.float64]:
    """Places (3, 2) so that the arm on whose side a box lies reaches the tower with it."""
    while True:
        places = np.stack([random.uniform(-0.25, 0.25, 3), random.uniform(0.39, 0.61, 3)], axis=1)
        if closest(places) < ROOM:
            continue
        lowest = places[order[0], 0]
        moved = places[list(order[1:]), 0]
        if (np.abs(moved) > SIDE).all() and (np.sign(moved) * lowest > -ACROSS).all():
            return places


def _stage(tower: Tower, order: tuple[int, ...], count: int, touched: tuple[bool, bool]) -> int:
    """Progress at this instant while the tower is not done, an index into ``Stack.stages``."""
    if count == len(order):
        # It stands, with a gripper still at it.
        return 4 if count == 2 else 7
    level = max(count, 1)
    first = 0 if level == 1 else 4
    upper, lower = order[level], order[level - 1]
    if tower.bottom(upper) > LIFTED:
        over = tower.apart(upper, lower) < CENTRED and tower.bottom(upper) > tower.top(lower) - 0.01
        return first + (3 if over else 2)
    return first + int(touched[level - 1])
