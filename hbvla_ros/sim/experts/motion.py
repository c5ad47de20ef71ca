# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Motion pieces that the scripted experts share: solving, approaching, going home, carrying.

Arms are numbered 0 (left) and 1 (right). Points are (x, y, z) in the world, m.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim import arms, kinematics
from hbvla_ros.sim.arms import START_ARM

DOWN = math.pi / 2
TOOL_STEP = 0.019  # m the target may lead the measured grasp point, about 0.3 m/s
JOINT_STEP = 0.09  # rad the target may lead a measured joint
CLEAR_HEIGHT = 0.13  # m, above which a free arm may move sideways
HOVER = 0.09  # m above the grasp point while approaching from the side

Point = tuple[float, float, float]


def point(values: NDArray[np.float64]) -> Point:
    """Three numbers as plain floats."""
    return float(values[0]), float(values[1]), float(values[2])


def solve(arm: int, goal: Point, pitch: float = DOWN, yaw: float = 0.0) -> NDArray[np.float64]:
    """The (6,) joints that bring an arm's grasp point to ``goal``.

    Args:
        arm: 0 or 1.
        goal: in the world, m; out of reach gives the nearest stretched arm.
        pitch: downward angle of the gripper, rad; by default it points at the table.
        yaw: turn about the vertical of a gripper that points down, rad; 0 has the fingers along
            the world's y axis.
    """
    sign = 1.0 if arm == 0 else -1.0
    x = sign * (goal[0] + sign * arms.BASE_X)
    y = sign * (goal[1] - arms.BASE_Y)
    return kinematics.inverse(x, y, goal[2], pitch, yaw)


def approach(
    joints: NDArray[np.float64], goal: NDArray[np.float64], distance: float
) -> NDArray[np.float64]:
    """The goal, or a point on the way to it that the arm reaches at a bounded speed.

    Args:
        joints: (6,) measured, rad.
        goal: (6,) wanted, rad.
        distance: from the measured grasp point to the wanted one, m.
    """
    difference = goal - joints
    largest = float(np.abs(difference).max())
    share = min(1.0, TOOL_STEP / max(distance, 1e-9), JOINT_STEP / max(largest, 1e-9))
    return joints + share * difference


def go_home(arm: int, tip: Point) -> tuple[NDArray[np.float64], float]:
    """Joints (6,) on the way home and the distance in m, for :func:`approach`.

    Straight up first, so that nothing on the table is swept along.
    """
    if tip[2] < CLEAR_HEIGHT - 0.02:
        goal = (tip[0], tip[1], CLEAR_HEIGHT + 0.03)
        return solve(arm, goal), math.dist(goal, tip)
    sign = 1.0 if arm == 0 else -1.0
    return START_ARM, math.dist((-0.18 * sign, arms.BASE_Y, 0.29), tip)


def is_near(tip: Point, opening: float, target: Point) -> bool:
    """Whether a gripper is where it can close on an object, or has it.

    Args:
        tip: grasp point, m.
        opening: of the gripper, 0 closed to 1 open.
        target: the object's centre, m.
    """
    lateral = math.hypot(tip[0] - target[0], tip[1] - target[1])
    above = tip[2] - target[2]
    # Once the fingers close, the object may shift between them; do not let go for that.
    reach = 0.013 if opening > 0.85 else 0.022
    return lateral < reach and abs(above) < (0.012 if opening > 0.85 else 0.02)


def is_holding(opening: float, speed: float) -> bool:
    """Whether fingers that closed on something have stopped: opening 0 to 1, speed in 1/s."""
    return opening < 0.75 and abs(speed) < 0.35


def reach_for(tip: Point, opening: float, target: Point) -> tuple[Point, float]:
    """Goal of the grasp point and gripper command on the way to an object, from the side and above.

    Arguments as in :func:`is_near`.
    """
    grasp = grasp_point(target)
    lateral = math.hypot(tip[0] - grasp[0], tip[1] - grasp[1])
    height = min(max(lateral - 0.010, 0.0) * 3.0, HOVER)
    height = max(height, min(max(0.85 - opening, 0.0) * 0.3, 0.07))
    return (grasp[0], grasp[1], grasp[2] + height), 1.0


def grasp_point(target: Point) -> Point:
    """Where to take an object whose centre is ``target``: never lower than the fingers can go."""
    return target[0], target[1], min(max(target[2], 0.018), 0.30)
