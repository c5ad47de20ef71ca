# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert for stacking.

What to move where is decided by ``tasks.tower.next_move``; here it is decided with which arm and
how. An arm that holds something it should not hold puts it down first; a box that lies beyond
the reach of the arm that could stack it is handed over by way of the middle of the table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.arms import ACTION_SIZE
from hbvla_ros.sim.experts import motion
from hbvla_ros.sim.experts.motion import Point
from hbvla_ros.sim.tasks.stack import BOXES, NAMES, StackLayout
from hbvla_ros.sim.tasks.tower import (
    Move,
    Place,
    Tower,
    free_place,
    next_move,
    reaches,
    relay_place,
)

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

AT_HAND = 0.03  # m, from the grasp point to the middle of a box between the fingers
OPEN = 0.8  # opening of the gripper from which on fingers no longer touch a box
SETTLED = 0.35  # gripper spans/s, below which closing fingers have stopped
FINGER = 0.04  # m, from the grasp point to an open finger
SQUARE = 0.25  # rad; fingers turn a box by that much themselves when they close
WIDE = 0.025  # m, half width from which on a box is hard to get between the fingers
AROUND = 0.10  # m, from middle to middle: the fingers could touch such a box
PASS = 0.055  # m, of the grasp point above a box that it passes
ABOVE = 0.03  # m, below a carried box when it arrives over its place
LANDED = 0.005  # m, above the table or the box below
CENTRED = 0.012  # m, how exactly a box is put down


class StackExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state."""
        simulation = self._simulation
        layout = simulation.layout
        assert isinstance(layout, StackLayout)
        measured = simulation.joint_positions()
        velocities = simulation.joint_velocities()
        view = simulation.view
        tower = Tower.seen(view, BOXES)
        tips = simulation.tip_positions()
        grasped = [
            next((n for n, name in enumerate(NAMES) if view.grasped_by(name, arm)), None)
            for arm in range(2)
        ]
        task = _assign(tower, layout.order, tips, grasped)
        action = np.empty(ACTION_SIZE)
        for arm in range(2):
            joints = measured[7 * arm : 7 * arm + 6]
            opening, tip = float(measured[7 * arm + 6]), motion.point(tips[arm])
            if task is not None and arm == task[0]:
                holds = (
                    grasped[arm] == task[1].number and abs(float(velocities[7 * arm + 6])) < SETTLED
                )
                goal, gripper, yaw = _work(tip, opening, holds, tower, task[1])
                goal_joints = motion.solve(arm, goal, yaw=yaw)
                distance = math.dist(goal, tip)
            else:
                goal_joints, distance = _leave(arm, tip, opening, tower)
                gripper = 1.0
            action[7 * arm : 7 * arm + 6] = motion.approach(joints, goal_joints, distance)
            action[7 * arm + 6] = gripper
        return action


def _assign(
    tower: Tower,
    order: tuple[int, ...],
    tips: NDArray[np.float64],
    grasped: list[int | None],
) -> tuple[int, Move] | None:
    """Which arm moves which box where; None sends both arms home.

    ``grasped`` names the box between the fingers of each arm.
    """
    move = next_move(tower, order)
    for arm, held in enumerate(grasped):
        if held is None:
            continue
        landed = tower.bottom(held) < LANDED
        if tower.tilted(held):
            return None if landed else (arm, Move(held, free_place(tower, held, arm)))
        if move is not None and held == move.number:
            return arm, _within_reach(tower, move, arm)
        if held in order[: tower.levels(order)] or landed:
            # It stands where it may stay: let go, before anything else is done.
            return None
        return arm, Move(held, free_place(tower, held, arm))
    if move is None:
        return None
    arm = _free_arm(tower, move, tips)
    return arm, _within_reach(tower, move, arm)


def _within_reach(tower: Tower, move: Move, arm: int) -> Move:
    """The move itself, or one to where the other arm can take the box."""
    if reaches(arm, move.place[0]):
        return move
    return Move(move.number, relay_place(tower, move.number, move.place))


def _free_arm(tower: Tower, move: Move, tips: NDArray[np.float64]) -> int:
    """The arm that reaches both ends of the move, else the one on whose side the box lies."""
    x = float(tower.positions[move.number, 0])
    able = [arm for arm in range(2) if reaches(arm, x) and reaches(arm, move.place[0])]
    if len(able) == 1:
        return able[0]
    if able and abs(x) < 0.06:
        # In the middle the arm that is there already, so that the choice does not flicker.
        return int(np.argmin(np.linalg.norm(tips - tower.positions[move.number], axis=1)))
    return 0 if x < 0 else 1


def _leave(arm: int, tip: Point, opening: float, tower: Tower) -> tuple[NDArray[np.float64], float]:
    """Joints (6,) on the way home and the distance in m: let go, straight up, then home."""
    aside = np.linalg.norm(tower.positions[:, :2] - tip[:2], axis=1)
    around = (aside < AT_HAND) & (np.abs(tower.positions[:, 2] - tip[2]) < AT_HAND)
    if opening < OPEN and around.any():
        return motion.solve(arm, tip), 1e-3
    heights = [tower.top(number) for number in np.flatnonzero(aside < AROUND)]
    clear = max(heights, default=0.0) + PASS - 0.02
    if tip[2] < clear:
        goal = (tip[0], tip[1], clear + 0.04)
        return motion.solve(arm, goal), math.dist(goal, tip)
    return motion.go_home(arm, tip)


def _work(
    tip: Point, opening: float, holds: bool, tower: Tower, move: Move
) -> tuple[Point, float, float]:
    """Goal of the acting arm's grasp point, its gripper command and the turn of its fingers."""
    target = motion.point(tower.positions[move.number])
    closed_on_nothing = opening < 0.25
    if motion.is_near(tip, opening, target) and not closed_on_nothing:
        if holds:
            goal, gripper = _carry(tip, target, tower.bottom(move.number), move.place)
            return goal, gripper, 0.0
        return motion.grasp_point(target), 0.0, _finger_yaw(tower, move.number)
    goal, gripper = motion.reach_for(tip, opening, target)
    clear = _clear_height(tip, tower, move.number)
    if tip[2] < clear - 0.02:
        # The fingers are down beside a box that they are not meant for.
        return (tip[0], tip[1], clear + 0.02), 1.0, 0.0
    return (goal[0], goal[1], max(goal[2], clear)), gripper, _finger_yaw(tower, move.number)


def _clear_height(tip: Point, tower: Tower, target: int) -> float:
    """Lowest grasp point, m, that passes over the boxes around it, unless it is at its target."""
    if math.dist(tip[:2], tower.positions[target, :2]) < 0.045:
        return 0.0
    tops = [
        tower.top(other)
        for other in tower.others(target)
        if math.dist(tip[:2], tower.positions[other, :2]) < AROUND
    ]
    return max(tops, default=-PASS) + PASS


def _finger_yaw(tower: Tower, number: int) -> float:
    """Turn of the gripper, rad, for closing on two upright faces of a box.

    The smallest turn for which the box fits between the fingers and no other box is in their way.
    """
    best = (math.inf, 0.0)
    x, y, z = tower.positions[number]
    for axis in range(3):
        across = tower.rotations[number][:, axis]
        if abs(across[2]) > 0.7:
            continue
        # A face and the one opposite are the same to a gripper.
        yaw = (math.atan2(-across[0], across[1]) + math.pi / 2) % math.pi - math.pi / 2
        cost = abs(yaw) + (1.0 if tower.sizes[number, axis] > WIDE else 0.0)
        for side in (-FINGER, FINGER):
            finger = (x - side * math.sin(yaw), y + side * math.cos(yaw))
            for other in tower.others(number):
                aside = math.dist(finger, tower.positions[other, :2])
                if aside < 0.033 and abs(tower.positions[other, 2] - z) < 0.03:
                    cost += 3.0
        best = min(best, (cost, yaw))
    return math.copysign(max(abs(best[1]) - SQUARE, 0.0), best[1])


def _carry(tip: Point, target: Point, bottom: float, place: Place) -> tuple[Point, float]:
    """Lift, move over the place, lower, release; ``bottom`` is that of the box, m."""
    dx, dy = place[0] - target[0], place[1] - target[1]
    left = math.hypot(dx, dy)
    above = bottom - place[2]
    if left < CENTRED and above < LANDED:
        return tip, 1.0
    if left < CENTRED:
        return (tip[0] + dx, tip[1] + dy, tip[2] - above), 0.0
    if left < 0.02 and -0.001 < above < ABOVE - 0.005:
        # Low already and almost there: a correction at this height.
        return (tip[0] + dx, tip[1] + dy, tip[2]), 0.0
    # Sideways only as far as the height allows: a smooth corner instead of a stop.
    free = min(max((above - 0.005) / 0.025, 0.0), 1.0)
    if left > 0.12:
        free = min(max((bottom - 0.005) / 0.05, 0.0), 1.0)
    ahead = min(1.0, 0.12 / left) * free
    return (tip[0] + dx * ahead, tip[1] + dy * ahead, tip[2] + ABOVE + 0.01 - above), 0.0
