# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert for pick and place.

It decides from the simulator's state alone, so it recovers from any state that noise or a policy
has led to, and its answer is a function that a policy can learn. Closed-loop specification,
section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.arms import ACTION_SIZE
from hbvla_ros.sim.experts import motion
from hbvla_ros.sim.experts.motion import Point
from hbvla_ros.sim.objects import BUCKET
from hbvla_ros.sim.tasks.pick_place import INSIDE_HALF, inside

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

CARRY_HEIGHT = 0.15  # m, grasp point while carrying
RELEASE_HEIGHT = 0.105


class PickPlaceExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state."""
        simulation = self._simulation
        view = simulation.view
        name = simulation.task.target(view, simulation.layout)
        if name is None or inside(view.position(name), view.position(BUCKET.name)):
            return put_into_bucket(simulation, None)
        return put_into_bucket(simulation, Delivery(view.position(name)))


@dataclass(frozen=True)
class Delivery:
    """What is to be brought into the bucket.

    Attributes:
        target: (3,) where the object is, m.
        place: (3,) above which place it is released, m; None stands for the middle.
        tolerance: how far from that place it may be released, m.
        stuck: whether it rests on something else in the bucket and must be taken again.
    """

    target: NDArray[np.float64]
    place: NDArray[np.float64] | None = None
    tolerance: float = 0.022
    stuck: bool = False


def put_into_bucket(simulation: AlohaSimulation, delivery: Delivery | None) -> NDArray[np.float64]:
    """The (14,) command that brings an object into the bucket; None sends both arms home.

    The scene must hold a bucket.
    """
    measured = simulation.joint_positions()
    velocities = simulation.joint_velocities()
    tips = simulation.tip_positions()
    bucket = simulation.view.position(BUCKET.name)
    action = np.empty(ACTION_SIZE)
    acting = None if delivery is None else _acting_arm(delivery.target, bucket, tips)
    for arm in range(2):
        joints = measured[7 * arm : 7 * arm + 6]
        opening = float(measured[7 * arm + 6])
        tip = motion.point(tips[arm])
        if delivery is not None and arm == acting:
            speed = float(velocities[7 * arm + 6])
            goal, gripper = _work(tip, opening, speed, delivery, bucket)
            goal_joints = motion.solve(arm, goal)
            distance = math.dist(goal, tip)
        else:
            goal_joints, distance = motion.go_home(arm, tip)
            gripper = 1.0
        action[7 * arm : 7 * arm + 6] = motion.approach(joints, goal_joints, distance)
        action[7 * arm + 6] = gripper
    return action


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


def _work(
    tip: Point, opening: float, speed: float, delivery: Delivery, bucket: NDArray[np.float64]
) -> tuple[Point, float]:
    """Goal of the acting arm's grasp point and its gripper command."""
    target = motion.point(delivery.target)
    aside = max(abs(target[0] - bucket[0]), abs(target[1] - bucket[1]))
    closed_on_nothing = opening < 0.25
    if motion.is_near(tip, opening, target) and not closed_on_nothing:
        if not motion.is_holding(opening, speed) and target[2] < 0.06:
            return motion.grasp_point(target), 0.0
        place = bucket if delivery.place is None else delivery.place
        return _carry(tip, target, motion.point(place), delivery.tolerance)
    if aside < INSIDE_HALF - 0.01 and target[2] > 0.04 and not delivery.stuck:
        # Just released: stay above until the object has come to rest.
        return (tip[0], tip[1], max(tip[2], RELEASE_HEIGHT)), 1.0
    return motion.reach_for(tip, opening, target)


def _carry(tip: Point, target: Point, place: Point, tolerance: float) -> tuple[Point, float]:
    """Lift, move over the place, lower, release."""
    dx, dy = place[0] - target[0], place[1] - target[1]
    left = math.hypot(dx, dy)
    if left < 0.03:
        if left < tolerance and tip[2] < RELEASE_HEIGHT + 0.012:
            return (tip[0], tip[1], RELEASE_HEIGHT), 1.0
        return (tip[0] + dx, tip[1] + dy, RELEASE_HEIGHT), 0.0
    # Sideways only as far as the height allows: a smooth corner instead of a stop.
    bottom = target[2] - 0.025
    free = min(max((bottom - 0.03) / 0.05, 0.0), 1.0)
    if left > 0.16:
        free = min(max((bottom - 0.005) / 0.05, 0.0), 1.0)
    ahead = min(1.0, 0.12 / left) * free
    return (tip[0] + dx * ahead, tip[1] + dy * ahead, CARRY_HEIGHT), 0.0
