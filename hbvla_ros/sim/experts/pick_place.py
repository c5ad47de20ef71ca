# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert for pick and place.

It decides from the simulator's state alone, so it recovers from any state that noise or a policy
has led to, and its answer is a function that a policy can learn. Closed-loop specification,
section 2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim import arms, kinematics
from hbvla_ros.sim.simulation import ACTION_SIZE, START_ARM, AlohaSimulation
from hbvla_ros.sim.tasks.pick_place import INSIDE_HALF, inside

DOWN = math.pi / 2
TOOL_STEP = 0.019  # m the target may lead the measured grasp point, about 0.3 m/s
JOINT_STEP = 0.09  # rad the target may lead a measured joint
CARRY_HEIGHT = 0.15  # m, grasp point while carrying
RELEASE_HEIGHT = 0.105
CLEAR_HEIGHT = 0.13  # m, above which a free arm may move sideways
HOVER = 0.09  # m above the grasp point while approaching from the side

Point = tuple[float, float, float]


class PickPlaceExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state."""
        simulation = self._simulation
        measured = simulation.joint_positions()
        velocities = simulation.joint_velocities()
        tips = simulation.tip_positions()
        target = simulation.object_positions()[simulation.target]
        bucket = simulation.bucket_position()
        action = np.empty(ACTION_SIZE)
        acting = None if inside(target, bucket) else _acting_arm(target, bucket, tips)
        for arm in range(2):
            joints = measured[7 * arm : 7 * arm + 6]
            opening = float(measured[7 * arm + 6])
            tip = _point(tips[arm])
            if arm == acting:
                goal, gripper = _work(
                    tip, opening, float(velocities[7 * arm + 6]), _point(target), _point(bucket)
                )
                goal_joints = _solve(arm, goal)
                distance = math.dist(goal, tip)
            else:
                goal_joints, distance = _go_home(arm, tip)
                gripper = 1.0
            action[7 * arm : 7 * arm + 6] = _approach(joints, goal_joints, distance)
            action[7 * arm + 6] = gripper
        return action


def _point(values: NDArray[np.float64]) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def _acting_arm(
    target: NDArray[np.float64], bucket: NDArray[np.float64], tips: NDArray[np.float64]
) -> int:
    """The arm that holds the target, else the one on whose side it lies."""
    distances = np.linalg.norm(tips - target, axis=1)
    nearest = int(np.argmin(distances))
    over = max(abs(target[0] - bucket[0]), abs(target[1] - bucket[1])) < INSIDE_HALF
    # Over or near the middle the holding arm keeps its object although it crosses the line.
    if distances[nearest] < 0.04 or over:
        return nearest
    return 0 if target[0] < 0 else 1


def _solve(arm: int, goal: Point) -> NDArray[np.float64]:
    """Joints with the gripper pointing down and its fingers along the world's y axis."""
    sign = 1.0 if arm == 0 else -1.0
    x = sign * (goal[0] + sign * arms.BASE_X)
    y = sign * (goal[1] - arms.BASE_Y)
    return kinematics.inverse(x, y, goal[2], DOWN)


def _go_home(arm: int, tip: Point) -> tuple[NDArray[np.float64], float]:
    """Straight up first, so that nothing on the table is swept along."""
    if tip[2] < CLEAR_HEIGHT - 0.02:
        goal = (tip[0], tip[1], CLEAR_HEIGHT + 0.03)
        return _solve(arm, goal), math.dist(goal, tip)
    sign = 1.0 if arm == 0 else -1.0
    return START_ARM, math.dist((-0.18 * sign, arms.BASE_Y, 0.29), tip)


def _approach(
    joints: NDArray[np.float64], goal: NDArray[np.float64], distance: float
) -> NDArray[np.float64]:
    """The goal, or a point on the way to it that the arm reaches at a bounded speed."""
    difference = goal - joints
    largest = float(np.abs(difference).max())
    share = min(1.0, TOOL_STEP / max(distance, 1e-9), JOINT_STEP / max(largest, 1e-9))
    return joints + share * difference


def _work(
    tip: Point, opening: float, speed: float, target: Point, bucket: Point
) -> tuple[Point, float]:
    """Goal of the acting arm's grasp point and its gripper command."""
    aside = max(abs(target[0] - bucket[0]), abs(target[1] - bucket[1]))
    grasp = (target[0], target[1], min(max(target[2], 0.018), 0.30))
    lateral = math.hypot(tip[0] - grasp[0], tip[1] - grasp[1])
    above = tip[2] - target[2]
    # Once the fingers close, the object may shift between them; do not let go for that.
    reach = 0.013 if opening > 0.85 else 0.022
    near = lateral < reach and abs(above) < (0.012 if opening > 0.85 else 0.02)
    closed_on_nothing = opening < 0.25
    if near and not closed_on_nothing:
        holding = opening < 0.75 and abs(speed) < 0.35
        if not holding and target[2] < 0.06:
            return grasp, 0.0
        return _carry(tip, above, target, bucket)
    if aside < INSIDE_HALF - 0.01 and target[2] > 0.04:
        # Just released: stay above until the object has come to rest.
        return (tip[0], tip[1], max(tip[2], RELEASE_HEIGHT)), 1.0
    height = min(max(lateral - 0.010, 0.0) * 3.0, HOVER)
    height = max(height, min(max(0.85 - opening, 0.0) * 0.3, 0.07))
    return (grasp[0], grasp[1], grasp[2] + height), 1.0


def _carry(tip: Point, above: float, target: Point, bucket: Point) -> tuple[Point, float]:
    """Lift, move over the bucket, lower, release."""
    dx, dy = bucket[0] - target[0], bucket[1] - target[1]
    left = math.hypot(dx, dy)
    if left < 0.03:
        if left < 0.022 and tip[2] < RELEASE_HEIGHT + 0.012:
            return (tip[0], tip[1], RELEASE_HEIGHT), 1.0
        return (tip[0] + dx, tip[1] + dy, RELEASE_HEIGHT), 0.0
    # Sideways only as far as the height allows: a smooth corner instead of a stop.
    bottom = target[2] - 0.025
    free = min(max((bottom - 0.03) / 0.05, 0.0), 1.0)
    if left > 0.16:
        free = min(max((bottom - 0.005) / 0.05, 0.0), 1.0)
    ahead = min(1.0, 0.12 / left) * free
    return (tip[0] + dx * ahead, tip[1] + dy * ahead, CARRY_HEIGHT), 0.0
