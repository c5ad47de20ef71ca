# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Put the named object, and no other, into the bucket (closed-loop specification, section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import BUCKET_HALF, BUCKET_WALL, OBJECTS

INSIDE_HALF = BUCKET_HALF - 2 * BUCKET_WALL  # m, from the centre to the inner face
LOW = 0.045  # m, an object whose centre is below lies in the bucket, not on its rim
STAY_SECONDS = 0.28  # how long the object must stay inside before it counts
LIFTED = 0.02  # m above its place on the table

STAGES = ('nothing', 'touched', 'lifted', 'over the bucket', 'in the bucket')


@dataclass(frozen=True)
class Layout:
    """What one seed decides: positions (m), yaws (rad), and which object is asked for."""

    target: int
    bucket: NDArray[np.float64]
    objects: NDArray[np.float64]
    yaws: NDArray[np.float64]

    @property
    def instruction(self) -> str:
        """The sentence the policy gets."""
        return instruction(self.target)


def instruction(target: int) -> str:
    """The sentence for object number ``target``."""
    return f'put the {OBJECTS[target].phrase} into the bucket'


def sample_layout(random: np.random.Generator) -> Layout:
    """Draw the target, the bucket and three objects at least 0.10 m apart."""
    target = int(random.integers(len(OBJECTS)))
    bucket = np.array([random.uniform(-0.03, 0.03), random.uniform(0.46, 0.54), 0.0])
    while True:
        sides = random.choice((-1.0, 1.0), size=len(OBJECTS))
        places = np.stack(
            [sides * random.uniform(0.13, 0.26, len(OBJECTS)),
             random.uniform(0.38, 0.62, len(OBJECTS))], axis=1,
        )  # fmt: skip
        if _apart(places, bucket):
            break
    heights = np.array([kind.half_height for kind in OBJECTS])
    objects = np.concatenate([places, heights[:, None]], axis=1)
    return Layout(target, bucket, objects, random.uniform(-0.2, 0.2, len(OBJECTS)))


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
    return (
        abs(position[0] - bucket[0]) < INSIDE_HALF
        and abs(position[1] - bucket[1]) < INSIDE_HALF
        and position[2] < LOW
    )


def done(positions: NDArray[np.float64], bucket: NDArray[np.float64], target: int) -> bool:
    """Whether the target (row of ``positions`` (3, 3), m) and no other object is inside."""
    return all(
        inside(position, bucket) == (number == target) for number, position in enumerate(positions)
    )


def stage(
    positions: NDArray[np.float64], bucket: NDArray[np.float64], layout: Layout, touched: bool
) -> int:
    """Progress at this instant, an index into ``STAGES``."""
    position = positions[layout.target]
    if inside(position, bucket):
        return 4
    raised = position[2] - OBJECTS[layout.target].half_height
    if raised > LIFTED:
        over = math.hypot(position[0] - bucket[0], position[1] - bucket[1]) < INSIDE_HALF
        return 3 if over else 2
    return 1 if touched else 0
