# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Props: the bucket, the objects and whatever else a task puts on the table. Lengths in m.

A prop is one body made of one or more simple shapes. Robot, table and cameras are the same for
every task (``scene``); the props are what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ('box', 'cylinder', 'capsule', 'sphere')

BUCKET_HALF = 0.07  # m, outside
BUCKET_WALL = 0.004
BUCKET_HEIGHT = 0.06
BUCKET_FLOOR = 0.006
BUCKET_COLOUR = (0.95, 0.70, 0.15)


@dataclass(frozen=True)
class Part:
    """One shape of a prop.

    Attributes:
        name: unique within the prop; empty for the only part of a simple object.
        shape: one of ``SHAPES``.
        size: MuJoCo half sizes, m: box (x, y, z), cylinder and capsule (radius, half length, 0)
            along z, sphere (radius, 0, 0).
        colour: red, green, blue, 0 to 1.
        position: centre of the part in the prop's frame, m.
        quaternion: turn of the part in the prop's frame, w first.
        collides: False for a marking that is only seen.
    """

    name: str
    shape: str
    size: tuple[float, float, float]
    colour: tuple[float, float, float]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    collides: bool = True


@dataclass(frozen=True)
class Prop:
    """One thing on the table.

    Attributes:
        name: unique among all props of all tasks, since training tells them apart by it.
        phrase: what an instruction calls it.
        parts: its shapes.
        half_height: height of the prop's origin above the table when it stands there, m.
        movable: True gives it a free joint; False fixes it where the layout puts it.
        mass: kg, of a movable prop.
        inertia: principal moments about the origin, kg m2, of a movable prop. The default is
            more than a small solid has: it keeps light objects from rocking in the grasp.
        friction: sliding (1), torsional (m) and rolling (m) coefficients.
    """

    name: str
    phrase: str
    parts: tuple[Part, ...]
    half_height: float = 0.0
    movable: bool = True
    mass: float = 0.05
    inertia: tuple[float, float, float] = (5e-5, 5e-5, 5e-5)
    friction: tuple[float, float, float] = (1.2, 0.01, 0.0005)


def _simple(
    name: str,
    shape: str,
    size: tuple[float, float, float],
    half_height: float,
    colour: tuple[float, float, float],
) -> Prop:
    """A movable object of one shape, called like its name."""
    return Prop(name, name.replace('_', ' '), (Part('', shape, size, colour),), half_height)


def _bucket() -> Prop:
    half, wall, height = BUCKET_HALF, BUCKET_WALL, BUCKET_HEIGHT
    sides = {
        'floor': ((half, half, BUCKET_FLOOR / 2), (0.0, 0.0, BUCKET_FLOOR / 2)),
        'east': ((wall, half, height / 2), (half - wall, 0.0, height / 2)),
        'west': ((wall, half, height / 2), (wall - half, 0.0, height / 2)),
        'north': ((half, wall, height / 2), (0.0, half - wall, height / 2)),
        'south': ((half, wall, height / 2), (0.0, wall - half, height / 2)),
    }
    parts = tuple(
        Part(name, 'box', size, BUCKET_COLOUR, position) for name, (size, position) in sides.items()
    )
    return Prop('bucket', 'bucket', parts, movable=False, friction=(0.6, 0.005, 0.0001))


RED_CUBE = _simple('red_cube', 'box', (0.02, 0.02, 0.02), 0.02, (0.85, 0.10, 0.10))
GREEN_CYLINDER = _simple(
    'green_cylinder', 'cylinder', (0.019, 0.023, 0.0), 0.023, (0.10, 0.65, 0.20)
)
BLUE_BLOCK = _simple('blue_block', 'box', (0.025, 0.016, 0.02), 0.02, (0.12, 0.30, 0.90))
OBJECTS = (RED_CUBE, GREEN_CYLINDER, BLUE_BLOCK)
BUCKET = _bucket()
