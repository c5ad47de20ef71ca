# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Put two named objects into the bucket in the order asked for, and leave the third outside."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import BUCKET, OBJECTS
from hbvla_ros.sim.tasks.base import Layout, Progress, Task, updated_since
from hbvla_ros.sim.tasks.pick_place import LIFTED, NAMES, inside, sample_poses, was_touched

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

ORDERS = tuple(itertools.permutations(range(len(OBJECTS)), 2))
OFFSET = 0.034  # m along x from the middle of the bucket: two objects lie side by side
FAR_OFFSET = 0.041  # m along y, if the other object lies in the middle
CENTRAL = 0.012  # m along x, what counts as the middle


@dataclass(frozen=True, eq=False)
class SequenceLayout(Layout):
    """``order`` holds the numbers of the two objects asked for, indices into ``OBJECTS``."""

    order: tuple[int, int]


@dataclass(frozen=True)
class SequenceProgress(Progress):
    """What the order depends on.

    Attributes:
        first_in: the first object lies in the bucket and was there before the second.
        touched: for each of the two objects, whether a gripper has been at it; for the second
            only while the first lies in the bucket.
    """

    first_in: bool = False
    touched: tuple[bool, bool] = (False, False)


class Sequence(Task[SequenceLayout, SequenceProgress]):
    """Three objects and a bucket as in pick and place; two of the objects, one after the other."""

    name = 'sequence'
    stages = (
        'nothing',
        'touched the first',
        'lifted the first',
        'first in the bucket',
        'touched the second',
        'lifted the second',
        'both in the bucket',
    )
    max_seconds = 24.0
    props = (BUCKET, *OBJECTS)

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence for each ordered pair."""
        return tuple(
            f'put the {OBJECTS[first].phrase} and then the {OBJECTS[second].phrase} into the bucket'
            for first, second in ORDERS
        )

    def sample(self, random: np.random.Generator) -> SequenceLayout:
        """Draw the pair, then the places."""
        number = int(random.integers(len(ORDERS)))
        return SequenceLayout(self.instructions[number], sample_poses(random), ORDERS[number])

    def start(self, layout: SequenceLayout) -> SequenceProgress:
        """Nothing has been touched."""
        return SequenceProgress()

    def track(
        self, view: SceneView, layout: SequenceLayout, progress: SequenceProgress
    ) -> SequenceProgress:
        """Follow the two objects one after the other."""
        positions, bucket = view.positions(NAMES), view.position(BUCKET.name)
        within = [inside(position, bucket) for position in positions]
        first, second = layout.order
        # An object that was there first stays first only while it lies there.
        first_in = within[first] and (progress.first_in or not within[second])
        touched = self._touched(view, layout, progress, positions, first_in)
        stage = _stage(
            within[second],
            [positions[number][2] - OBJECTS[number].half_height for number in layout.order],
            first_in,
            touched,
        )
        third = 3 - first - second
        done = first_in and within[second] and not within[third]
        return SequenceProgress(
            max(progress.best_stage, stage),
            updated_since(done, progress.done_since, view.time),
            first_in,
            touched,
        )

    def _touched(
        self,
        view: SceneView,
        layout: SequenceLayout,
        progress: SequenceProgress,
        positions: NDArray[np.float64],
        first_in: bool,
    ) -> tuple[bool, bool]:
        tips = view.tips()
        now = [
            was_touched(positions[number], layout.poses[1 + number, :3], tips)
            for number in layout.order
        ]
        first, second = progress.touched
        return first or now[0], second or (first_in and now[1])

    def target(self, view: SceneView, layout: SequenceLayout) -> str | None:
        """The first of the two that does not lie in the bucket yet."""
        bucket = view.position(BUCKET.name)
        for number in layout.order:
            if not inside(view.position(NAMES[number]), bucket):
                return NAMES[number]
        return None

    def goal(self, view: SceneView, layout: SequenceLayout) -> NDArray[np.float64] | None:
        """A free place in the bucket: on the target's side, or away from what lies there."""
        target, bucket = self.target(view, layout), view.position(BUCKET.name)
        if target is None:
            return None
        others = [view.position(name) for name in NAMES if name != target]
        lying = [position - bucket for position in others if inside(position, bucket)]
        place = bucket.copy()
        if not lying:
            place[0] += math.copysign(OFFSET, view.position(target)[0] - bucket[0])
        elif abs(lying[0][0]) > CENTRAL:
            place[0] -= math.copysign(OFFSET, lying[0][0])
        else:
            # Beside an object in the middle there is more room along y, where all are slimmer.
            place[1] -= math.copysign(FAR_OFFSET, lying[0][1])
        return place


def _stage(
    second_in: bool, heights: list[float], first_in: bool, touched: tuple[bool, bool]
) -> int:
    """Progress at this instant, an index into ``Sequence.stages``; heights in m above the table."""
    if not first_in:
        return 2 if heights[0] > LIFTED else int(touched[0])
    if second_in:
        return 6
    return 5 if heights[1] > LIFTED else 3 + int(touched[1])
