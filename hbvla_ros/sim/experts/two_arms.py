# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Handing an object over in mid-air, for every expert that needs it.

The giver takes the object from above and keeps pointing down, its fingers along the world's y
axis. The receiver comes level from its own side with its fingers above and below the object, so
that the two pairs of fingers cross and leave each other room on a 4 cm cube. All that is done
follows from the scene of now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim import kinematics
from hbvla_ros.sim.arms import ACTION_SIZE
from hbvla_ros.sim.experts import motion
from hbvla_ros.sim.experts.motion import DOWN, HOVER, Point
from hbvla_ros.sim.tasks.hand_over import MEETING, held_place

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

ALOFT = 0.06  # m, an object whose centre is above has been lifted
_UPRIGHT = math.pi / 2  # rad of the wrist, with which a level gripper closes from above and below
_AT_MEETING = 0.08  # m between object and meeting point at which the receiver comes
_STAND_BY = 0.12  # m from the middle, where the receiver waits while the object comes
_CLEAR = 0.07  # m between a hand and an object that it has let go
_RETREAT = 0.09  # m ahead of a hand that moves straight back
_OPEN = 0.85  # opening above which a gripper has not closed on anything
_GRIPS = (0.25, 0.82)  # opening of a gripper with an object between its fingers
_STILL = 0.35  # 1/s, speed of fingers that have come to rest
_MET = 1.5  # 1/s, speed of fingers that have met an object and no longer close on it
_FETCH_X = 0.10  # m beyond the middle, further than which the giver cannot reach
_BRING_X = 0.05  # m beyond the middle, where the receiver puts such an object down
_LOW = 0.05  # m, height of a grasp point that may let go above the table


@dataclass(frozen=True)
class _Move:
    """Where an arm should go: joints (6,) rad, how far its grasp point is away, its gripper."""

    joints: NDArray[np.float64]
    distance: float
    gripper: float


class _Hand:
    """One gripper and where the object is as seen from it."""

    def __init__(self, simulation: AlohaSimulation, arm: int, target: NDArray[np.float64]) -> None:
        part = slice(7 * arm, 7 * arm + 6)
        self.arm = arm
        self.joints = simulation.joint_positions()[part]
        self.opening = float(simulation.joint_positions()[7 * arm + 6])
        self.speed = abs(float(simulation.joint_velocities()[7 * arm + 6]))
        tip = simulation.tip_positions()[arm]
        self.tip = motion.point(tip)
        # Along x: its own side of the table is at -inward.
        self.inward = 1.0 if arm == 0 else -1.0
        self.pitch = kinematics.forward(self.joints)[3]
        offset = target - tip
        axis = np.array([self.inward * math.cos(self.pitch), 0.0, -math.sin(self.pitch)])
        self.distance = float(np.linalg.norm(offset))
        self.along = float(offset @ axis)
        self._across = float(np.linalg.norm(offset - self.along * axis))

    @property
    def level(self) -> bool:
        """Whether it points across the table rather than at it."""
        return self.pitch < math.pi / 4

    @property
    def around(self) -> bool:
        """Whether it can close on the object, or is closing."""
        if self.opening > _OPEN:
            return self._across < 0.013 and -0.035 < self.along < 0.012
        return self._across < 0.030 and -0.045 < self.along < 0.022

    @property
    def grips(self) -> bool:
        """Whether its fingers have met the object, be it only with their ends."""
        between = self._across < 0.035 and -0.045 < self.along < 0.040
        return between and _GRIPS[0] < self.opening < _GRIPS[1]

    def to(self, goal: Point, gripper: float, pitch: float = DOWN) -> _Move:
        """Bring the grasp point to ``goal``; a level gripper is turned upright."""
        joints = motion.solve(self.arm, goal, pitch)
        if pitch == 0.0:
            joints[5] = _UPRIGHT
        return _Move(joints, math.dist(goal, self.tip), gripper)

    def home(self, upright: bool = False) -> _Move:
        """Go home with an open gripper; turned upright it is ready to receive."""
        joints, distance = motion.go_home(self.arm, self.tip)
        if upright:
            joints = np.append(joints[:5], _UPRIGHT)
        return _Move(joints, distance, 1.0)


def hand_over(simulation: AlohaSimulation, name: str, giver: int) -> NDArray[np.float64]:
    """The (14,) command with which one arm hands an object to the other.

    In the end the receiver holds the object on its own side, and the giver is at home.

    Args:
        simulation: in the state of now.
        name: of the prop.
        giver: arm 0 (left) or 1 (right).
    """
    target = simulation.view.position(name)
    hands = [_Hand(simulation, arm, target) for arm in range(2)]
    moves = _moves(hands[giver], hands[1 - giver], motion.point(target))
    action = np.empty(ACTION_SIZE)
    for hand, move in zip((hands[giver], hands[1 - giver]), moves, strict=True):
        first = 7 * hand.arm
        action[first : first + 6] = motion.approach(hand.joints, move.joints, move.distance)
        action[first + 6] = move.gripper
    return action


def _moves(giver: _Hand, receiver: _Hand, target: Point) -> tuple[_Move, _Move]:
    """What the giver and the receiver do."""
    aloft = target[2] > ALOFT
    if aloft and receiver.level and _has_received(giver, receiver):
        return _leave(giver), _keep(giver, receiver, target)
    if _must_fetch(giver, receiver, target):
        return giver.home(), _bring(receiver, target)
    if giver.grips and (aloft or giver.speed < _STILL):
        return _offer(giver, target), _receive(giver, receiver, target)
    return _pick(giver, target), _stand_back(receiver)


def _has_received(giver: _Hand, receiver: _Hand) -> bool:
    """Whether the giver may let go, or has."""
    if giver.grips:
        return receiver.grips and receiver.around and receiver.speed < _MET
    return receiver.grips


def _must_fetch(giver: _Hand, receiver: _Hand, target: Point) -> bool:
    """Whether the receiver brings the object to where the giver can take it."""
    beyond = target[0] * giver.inward
    lost = target[2] < ALOFT and beyond > _FETCH_X and not giver.grips
    # Once it has it between its fingers, it goes on until it has put it down.
    fetching = not receiver.level and receiver.grips and not giver.grips
    return lost or fetching


def _pick(hand: _Hand, target: Point) -> _Move:
    """Take the object from above."""
    grasp = motion.grasp_point(target)
    if hand.around and hand.opening > _GRIPS[0] and hand.pitch > 1.2:
        return hand.to(grasp, 0.0)
    (x, y, z), gripper = motion.reach_for(hand.tip, hand.opening, target)
    turn = max(abs(DOWN - hand.pitch), abs(hand.joints[5] - hand.joints[0]))
    height = min(max(turn - 0.15, 0.0) * 0.3, HOVER)
    return hand.to((x, y, max(z, grasp[2] + height)), gripper)


def _offer(hand: _Hand, target: Point) -> _Move:
    """Lift, bring the object to the meeting point and wait there."""
    free = _free(target)
    x, y, z = (at + wanted - now for at, wanted, now in zip(hand.tip, MEETING, target, strict=True))
    goal = (
        hand.tip[0] + (x - hand.tip[0]) * free, hand.tip[1] + (y - hand.tip[1]) * free, z,
    )  # fmt: skip
    return hand.to(goal, 0.0)


def _free(target: Point) -> float:
    """How far a held object may move sideways: 0 on the table, 1 above all others."""
    return min(max((target[2] - 0.055) / 0.05, 0.0), 1.0)


def _receive(giver: _Hand, receiver: _Hand, target: Point) -> _Move:
    """Come from the side and close on what the giver holds."""
    if target[2] < ALOFT:
        return _stand_back(receiver)
    if receiver.around and receiver.level and receiver.opening > _GRIPS[0]:
        return receiver.to(target, 0.0, pitch=0.0)
    if math.dist(target, MEETING) > _AT_MEETING:
        if receiver.level and receiver.distance > 0.10:
            return receiver.to((-receiver.inward * _STAND_BY, *MEETING[1:]), 1.0, pitch=0.0)
        return _stand_back(receiver)
    if receiver.along < -0.04:
        # Past the object: around it rather than through the giver's fingers.
        return _back_off(receiver)
    aside = math.hypot(receiver.tip[1] - target[1], receiver.tip[2] - target[2])
    turn = abs(receiver.joints[5] - _UPRIGHT) + abs(receiver.pitch)
    back = max(
        min(max(aside - 0.012, 0.0) * 2.0, 0.08),
        min(max(_OPEN - receiver.opening, 0.0) * 0.3, 0.07),
        min(max(turn - 0.15, 0.0) * 0.3, 0.08),
    )
    return receiver.to((target[0] - receiver.inward * back, *target[1:]), 1.0, pitch=0.0)


def _stand_back(hand: _Hand) -> _Move:
    """Wait at home, ready to receive; straight back first where the object is close."""
    if hand.level and hand.distance < 0.08:
        return _back_off(hand)
    return hand.home(upright=True)


def _back_off(hand: _Hand) -> _Move:
    """Straight back, open."""
    x, y, z = hand.tip
    return hand.to((x - hand.inward * _RETREAT, y, z), 1.0, pitch=0.0)


def _leave(hand: _Hand) -> _Move:
    """Open, then straight up, then home."""
    if hand.distance > _CLEAR:
        return hand.home()
    x, y, z = hand.tip
    return hand.to((x, y, z + (0.0 if hand.opening < 0.75 else _RETREAT)), 1.0)


def _keep(giver: _Hand, receiver: _Hand, target: Point) -> _Move:
    """Hold still until the giver has opened, then take the object away."""
    if giver.distance > _CLEAR or giver.opening > 0.75:
        return receiver.to(held_place(receiver.arm), 0.0, pitch=0.0)
    x, y, z = (
        at + wanted - now for at, wanted, now in zip(receiver.tip, MEETING, target, strict=True)
    )
    return receiver.to((x, y, z), 0.0, pitch=0.0)


def _bring(hand: _Hand, target: Point) -> _Move:
    """Take an object that the giver cannot reach and put it down where it can."""
    x, y, z = hand.tip
    short = -target[0] * hand.inward - _BRING_X
    if hand.grips and short < 0.03 and z < _LOW:
        return hand.to(hand.tip, 1.0)
    if not (hand.grips and hand.speed < _STILL):
        return _pick(hand, target)
    if short < 0.01:
        return hand.to((x, y, z - 0.05), 0.0)
    free = _free(target)
    toward_middle = 0.5 * (MEETING[1] - target[1]) * free
    return hand.to((x + hand.inward * 0.1 * free, y + toward_middle, 0.12), 0.0)
