# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert for the insertion.

Both arms work at once: each fetches its object and takes it to a meeting place, where the right
arm lines the peg up with the socket, wherever that is, and pushes. The grippers point steeply
downwards but not straight: they must leave room for each other, and in this pose each wrist camera
looks past its own fingers at the place where peg and socket meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.arms import ACTION_SIZE, ARMS
from hbvla_ros.sim.experts import motion, poses
from hbvla_ros.sim.tasks.insertion import LENGTH, PEGS, PIN_HALF, SOCKET, mouth_axis

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation
    from hbvla_ros.sim.view import SceneView

PITCH = math.radians(75.0)
MEETING = np.array([-0.055, 0.5, 0.14])  # m, the socket's centre
WAITING = np.array([0.13, 0.5, 0.14])  # m, the peg's centre while there is no socket to go to
OFF_TABLE = 0.075  # m, centre of an object that neither lies nor stands on the table
TILT = 0.7  # rad, sideways
RELEASE = 0.11  # m, grasp point when a jammed gripper opens
LOWEST = 0.019  # m, grasp point: the fingertips reach 1.7 cm further
PUSH = 0.0005  # m that the peg is sent into the pin: enough to touch it, and at rest there
BEFORE = 0.085  # m from the socket's centre to the peg's end while they are lined up
_OPENINGS = (0.63, 0.335)  # of a gripper that holds the socket, the peg
_X = np.array([1.0, 0.0, 0.0])

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class _Pose:
    """Place (3,) in m and turn (3, 3) of a gripper or an object."""

    place: Vector
    turn: Vector


@dataclass(frozen=True)
class _Hand:
    """One arm at one instant: its grasp point, its gripper and the object that is its business.

    ``grasped``: both fingers are on the object; ``jammed``: one is, the other on something else.
    """

    arm: int
    tip: _Pose
    opening: float
    speed: float
    grasped: bool
    jammed: bool
    thing: _Pose

    def holds(self) -> bool:
        """Whether both fingers are on the object and have stopped there."""
        firm = -0.15 < self.opening - _OPENINGS[self.arm] < 0.25 and abs(self.speed) < 0.5
        return firm and self.grasped


class InsertionExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state.

        Once the peg is in, both arms stay and hold it there.
        """
        measured = self._simulation.joint_positions()
        hands = self._hands(measured)
        holds = (hands[0].holds(), hands[1].holds())
        action = np.empty(ACTION_SIZE)
        for hand in hands:
            other = hands[1 - hand.arm]
            if not holds[hand.arm]:
                goal, gripper = _fetch(hand)
            else:
                gripper = 0.0
                if hand.arm == 0:
                    goal = _bring(hand, _socket_place(other, holds[1]), _X)
                else:
                    goal = _bring(hand, *_peg_place(hand, other, holds[0]))
            columns = slice(7 * hand.arm, 7 * hand.arm + 6)
            action[columns] = motion.approach(
                measured[columns],
                poses.solve_pose(hand.arm, goal.place, goal.turn),
                math.dist(goal.place, hand.tip.place),
            )
            action[7 * hand.arm + 6] = gripper
        return action

    def _hands(self, measured: NDArray[np.float64]) -> tuple[_Hand, _Hand]:
        simulation = self._simulation
        view = simulation.view
        # This task has a target at every instant.
        peg = cast('str', simulation.task.target(view, simulation.layout))
        velocities = simulation.joint_velocities()
        tips, turns = view.tips(), view.tip_rotations()
        left, right = (
            _Hand(
                arm,
                _Pose(tips[arm], turns[arm]),
                float(measured[7 * arm + 6]),
                float(velocities[7 * arm + 6]),
                view.grasped_by(name, arm),
                _jammed(view, name, arm),
                _Pose(view.position(name), view.rotation(name)),
            )
            for arm, name in enumerate((SOCKET.name, peg))
        )
        return left, right


def _jammed(view: SceneView, name: str, arm: int) -> bool:
    """Whether one finger is on a prop and the other one on another prop."""
    fingers = [f'{ARMS[arm]}_gripper_{finger}' for finger in ARMS]
    others = [prop.name for prop in (SOCKET, *PEGS) if prop.name != name]
    return any(
        view.touching(name, one) and any(view.touching(other, two) for other in others)
        for one, two in (fingers, fingers[::-1])
    )


def _fetch(hand: _Hand) -> tuple[_Pose, float]:
    """Goal of the grasp point and gripper command on the way to the object."""
    thing = hand.thing
    turn = _grasp_turn(hand)
    if hand.jammed:
        # Two things between the fingers: tilt them and let them fall, until they lie apart.
        goal = np.append(hand.tip.place[:2], RELEASE + 0.03)
        tilt = poses.about_z(TILT) if hand.arm == 0 else poses.about_z(-TILT)
        return _Pose(goal, turn @ tilt), float(hand.tip.place[2] > RELEASE)
    if thing.place[2] > OFF_TABLE:
        # It falls, or hangs on a finger and would flee from the hand that follows it.
        return _Pose(_kept_clear(hand), turn), 1.0
    grasp = thing.place.copy()
    grasp[2] = max(grasp[2], LOWEST)
    askew = math.acos(min(max(float(hand.tip.turn[:, 1] @ turn[:, 1]), -1.0), 1.0))
    # Once the fingers close, the object may shift between them; do not let go for that.
    room = (0.013, 0.012, 0.15) if hand.opening > 0.85 else (0.022, 0.02, 0.35)
    aside = math.hypot(hand.tip.place[0] - grasp[0], hand.tip.place[1] - grasp[1])
    above = abs(hand.tip.place[2] - grasp[2])
    near = aside < room[0] and above < room[1] and askew < room[2]
    if near and hand.opening > _OPENINGS[hand.arm] - 0.15:
        return _Pose(grasp, turn), 0.0
    off = aside + 0.08 * max(askew - 0.1, 0.0)
    height = min(max(off - 0.01, 0.0) * 3.0, motion.HOVER)
    height = max(height, min(max(0.85 - hand.opening, 0.0) * 0.3, 0.07))
    grasp[2] += height
    return _Pose(grasp, turn), 1.0


def _kept_clear(hand: _Hand) -> Vector:
    """Above where the gripper is, or the nearest place over its own side of the table."""
    side = -1.0 if hand.arm == 0 else 1.0
    x = side * min(max(side * float(hand.tip.place[0]), 0.05), 0.2)
    return np.array([x, min(max(float(hand.tip.place[1]), 0.4), 0.6), 0.14])


def _grasp_turn(hand: _Hand) -> Vector:
    """Gripper turn (3, 3) with the fingers on either side of the object.

    The gripper leans towards its base by as much as the object's direction allows.
    """
    usual = poses.arm_frame(hand.arm) @ poses.about_y(PITCH)
    level = hand.thing.turn[:2, 0]
    length = float(np.linalg.norm(level))
    if length < 0.5:
        # Something upright can be taken from any side.
        return usual
    across = np.array([-level[1], level[0], 0.0]) / length
    if across @ hand.tip.turn[:, 1] < 0:
        across = -across
    along = usual[:, 0] - float(usual[:, 0] @ across) * across
    along /= np.linalg.norm(along)
    return np.stack([along, across, np.cross(along, across)], axis=1)


def _bring(hand: _Hand, place: Vector, axis: Vector) -> _Pose:
    """Grasp point goal that takes the held object to ``place`` and along ``axis``, either way."""
    thing, tip = hand.thing, hand.tip
    usual = poses.arm_frame(hand.arm) @ poses.about_y(PITCH)
    held_axis = usual @ tip.turn.T @ thing.turn[:, 0]
    turns = [poses.turn_between(held_axis, sign * axis) @ usual for sign in (1.0, -1.0)]
    turn = max(turns, key=lambda one: float(np.trace(one @ usual.T)) + 2.0 * _ahead(hand.arm, one))
    # Sideways only as far as the height allows: a smooth corner instead of a stop.
    free = min(max((thing.place[2] - 0.035) / 0.04, 0.0), 1.0)
    goal = place.copy()
    goal[:2] = thing.place[:2] + free * (place[:2] - thing.place[:2])
    return _Pose(goal + turn @ tip.turn.T @ (tip.place - thing.place), turn)


def _ahead(arm: int, turn: Vector) -> float:
    """0 for a gripper that points ahead or down, negative where it points back at its base."""
    return min(0.3 + float(turn[:, 0] @ poses.arm_frame(arm)[:, 0]), 0.0)


def _socket_place(right: _Hand, peg_held: bool) -> Vector:
    """Where the left arm takes the socket: the meeting place, unless the right arm works there."""
    place = MEETING.copy()
    if not peg_held:
        place[0] = max(min(place[0], right.thing.place[0] - 0.155), -0.25)
    return place


def _peg_place(hand: _Hand, left: _Hand, socket_held: bool) -> tuple[Vector, Vector]:
    """Where the right arm takes the peg's centre, and along which axis."""
    socket = left.thing
    axis = mouth_axis(socket.turn)
    if not socket_held or axis[0] < 0.9 or socket.place[2] < 0.07:
        place = WAITING.copy()
        if not socket_held:
            place[0] = min(max(place[0], socket.place[0] + 0.185), 0.25)
        return place, _X
    end = hand.thing.place - LENGTH * mouth_axis(hand.thing.turn) - socket.place
    depth = float(end @ axis)
    miss = float(np.linalg.norm(end - depth * axis))
    # How far to hold back, 0 to 1: a peg that is inside goes on, one beside the socket returns.
    if depth < LENGTH - 0.005:
        share = 0.0 if miss < 0.012 else 1.0
    else:
        share = min(max((miss - 0.006) / 0.004, 0.0), 1.0)
    wanted = (1.0 - share) * (PIN_HALF - PUSH) + share * BEFORE
    return socket.place + (wanted + LENGTH) * axis, axis
