# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The bucket and the objects: sizes, colours and names. Lengths in m."""

from __future__ import annotations

from dataclasses import dataclass

BUCKET_HALF = 0.07  # m, outside
BUCKET_WALL = 0.004
BUCKET_HEIGHT = 0.06
BUCKET_FLOOR = 0.006


@dataclass(frozen=True)
class ObjectKind:
    """One movable object.

    ``size`` is the MuJoCo half size in m, ``half_height`` the height of its centre when it
    stands on the table in m.
    """

    name: str
    phrase: str
    shape: str
    size: tuple[float, float, float]
    half_height: float
    colour: tuple[float, float, float]


OBJECTS = (
    ObjectKind('red_cube', 'red cube', 'box', (0.02, 0.02, 0.02), 0.02, (0.85, 0.10, 0.10)),
    ObjectKind(
        'green_cylinder',
        'green cylinder',
        'cylinder',
        (0.019, 0.023, 0.0),
        0.023,
        (0.10, 0.65, 0.20),
    ),
    ObjectKind('blue_block', 'blue block', 'box', (0.025, 0.016, 0.02), 0.02, (0.12, 0.30, 0.90)),
)
BUCKET_COLOUR = (0.95, 0.70, 0.15, 1.0)
