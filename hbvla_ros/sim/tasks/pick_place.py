# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Put the named object, and no other, into the bucket (closed-loop specification, section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import BUCKET, BUCKET_HALF, BUCKET_WALL, OBJECTS
from hbvla_ros.sim.tasks.base import Layout, Progress, Task, standing_poses, updated_since

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

INSIDE_HALF = BUCKET_HALF - 2 * BUCKET_WALL  # m, from the centre to the inner face
LOW = 0.045  # m, an object whose centre is below lies in the bucket, not on its rim
LIFTED = 0.02  # m above its place on the table
MOVED = 0.01  # m along one axis, from where the object stood
NEAR = 0.025  # m along each axis, between object and grasp point

STAGES = ('nothing', 'touched', 'lifted', 'over the bucket', 'in the bucket')
NAMES = tuple(prop.name for prop in OBJECTS)


@dataclass(frozen=True, eq=False)
class PickPlaceLayout(Layout):
    """``target`` is the number of the object asked for, an index into ``objects.OBJECTS``."""

    target: int


@dataclass(frozen=True)
class PickPlaceProgress(Progress):
    """``touched`` tells whether a gripper has been at the target."""

    touched: bool = False


class PickPlace(Task[PickPlaceLayout, PickPlaceProgress]):
    """Three objects and a bucket on the table; one object is asked for."""

    name = 'pick_place'
    stages = STAGES
    max_seconds = 16.0
    props = (BUCKET, *OBJECTS)

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence an object."""
        return tuple(f'put the {prop.phrase} into the bucket' for prop in OBJECTS)

    def sample(self, random: np.random.Generator) -> PickPlaceLayout:
        """Draw the target, then the places."""
        target = int(random.integers(len(OBJECTS)))
        return PickPlaceLayout(self.instructions[target], sample_poses(random), target)

    def start(self, layout: PickPlaceLayout) -> PickPlaceProgress:
        """Nothing has been touched."""
        return PickPlaceProgress()

    def track(
        self, view: SceneView, layout: PickPlaceLayout, progress: PickPlaceProgress
    ) -> PickPlaceProgress:
        """Compare the objects with the bucket."""
        positions, bucket = view.positions(NAMES), view.position(BUCKET.name)
        position = positions[layout.target]
        touched = progress.touched or was_touched(
            position, layout.poses[1 + layout.target, :3], view.tips()
        )
        stage = object_stage(position, bucket, layout.target, touched)
        return PickPlaceProgress(
            max(progress.best_stage, stage),
            updated_since(done(positions, bucket, layout.target), progress.done_since, view.time),
            touched,
        )

    def target(self, view: SceneView, layout: PickPlaceLayout) -> str:
        """The object asked for."""
        return NAMES[layout.target]

    def goal(self, view: SceneView, layout: PickPlaceLayout) -> NDArray[np.float64]:
        """The bottom of the bucket."""
        return view.position(BUCKET.name)


def sample_poses(random: np.random.Generator) -> NDArray[np.float64]:
    """Poses (4, 7) of the bucket and of three objects at least 0.10 m apart."""
    bucket = np.array([random.uniform(-0.03, 0.03), random.uniform(0.46, 0.54)])
    while True:
        sides = random.choice((-1.0, 1.0), size=len(OBJECTS))
        places = np.stack(
            [sides * random.uniform(0.13, 0.26, len(OBJECTS)),
             random.uniform(0.38, 0.62, len(OBJECTS))], axis=1,
        )  # fmt: skip
        if _apart(places, bucket):
            break
    yaws = random.uniform(-0.2, 0.2, len(OBJECTS))
    return standing_poses(
        (BUCKET, *OBJECTS), np.concatenate([bucket[None], places]), np.append(0.0, yaws)
    )


def _apart(places: NDArray[np.float64], bucket: NDArray[np.float64]) -> bool:
    for first in range(len(places)):
        for second in range(first):
            if math.dist(places[first], places[second]) < 0.10:
                return False
        # The gripper needs room between the object and the bucket's wall.
        if abs(places[first][0] - bucket[0]) < BUCKET_HALF + 0.045:
            return False
    return True


def inside(position: NDArray[np.float64], bucket: NDArray[np.float64]) -> bool:
    """Whether an object's centre (3,) lies inside the bucket and low."""
    return bool(
        abs(position[0] - bucket[0]) < INSIDE_HALF
        and abs(position[1] - bucket[1]) < INSIDE_HALF
        and position[2] < LOW
    )


def done(positions: NDArray[np.float64], bucket: NDArray[np.float64], target: int) -> bool:
    """Whether the target (row of ``positions`` (3, 3), m) and no other object is inside."""
    return all(
        inside(position, bucket) == (number == target) for number, position in enumerate(positions)
    )


def was_touched(
    position: NDArray[np.float64], start: NDArray[np.float64], tips: NDArray[np.float64]
) -> bool:
    """Whether an object (3,) has left its start (3,) or a grasp point of ``tips`` (2, 3) is at it.

    All in m.
    """
    moved = np.abs(position - start).max() > MOVED
    near = np.abs(tips - position).max(axis=1).min() < NEAR
    return bool(moved or near)


def object_stage(
    position: NDArray[np.float64], bucket: NDArray[np.float64], number: int, touched: bool
) -> int:
    """How far object ``number`` at ``position`` (3,) is on its way, an index into ``STAGES``."""
    if inside(position, bucket):
        return 4
    if position[2] - OBJECTS[number].half_height > LIFTED:
        over = math.hypot(position[0] - bucket[0], position[1] - bucket[1]) < INSIDE_HALF
        return 3 if over else 2
    return 1 if touched else 0
