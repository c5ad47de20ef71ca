# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whole gripper poses, place and turn, for experts that must align what they hold.

``kinematics.inverse`` keeps the forearm from rolling, which fixes two of the three turns of the
gripper. The last three joints of a ViperX arm meet in one point, so the general case has a closed
form as well: waist, shoulder and elbow place that point, the last three make the turn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim import arms, kinematics

Matrix = NDArray[np.float64]


def about_y(angle: float) -> Matrix:
    """(3, 3) turn by ``angle`` (rad) about the y axis; positive tips the x axis downwards."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


def about_z(angle: float) -> Matrix:
    """(3, 3) turn by ``angle`` (rad) about the vertical, counter-clockwise from above."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def arm_frame(arm: int) -> Matrix:
    """(3, 3) turn of the base of arm 0 (left) or 1 (right); its x axis points at the other arm."""
    return np.eye(3) if arm == 0 else np.diag([-1.0, -1.0, 1.0])


def turn_between(first: Matrix, second: Matrix) -> Matrix:
    """Smallest (3, 3) turn that takes one unit vector (3,) to another.

    For opposite vectors it is not defined, and the identity is returned.
    """
    cosine = float(first @ second)
    if cosine < -0.999:
        return np.eye(3)
    x, y, z = np.cross(first, second)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1.0 + cosine))


def solve_pose(arm: int, point: Matrix, turn: Matrix) -> NDArray[np.float64]:
    """The (6,) joints that bring an arm's grasp point to a pose.

    Of the two answers the one with a positive wrist angle is given: the gripper is bent downwards
    from the forearm, as whenever it works on a table.

    Args:
        arm: 0 or 1.
        point: (3,) of the grasp point in the world, m; out of reach gives the nearest stretched
            arm.
        turn: (3, 3) of the gripper in the world: x along the fingers, y from finger to finger.

    Returns:
        Angles in rad, inside the joint limits.
    """
    frame = arm_frame(arm)
    side = -1.0 if arm == 0 else 1.0
    base = np.array([side * arms.BASE_X, arms.BASE_Y, 0.0])
    local = frame.T @ turn
    wrist = frame.T @ (point - base) - kinematics.WRIST_TO_TIP * local[:, 0]
    waist = math.atan2(wrist[1], wrist[0])
    # A level gripper straight ahead puts the wrist where it is wanted.
    reach = math.hypot(wrist[0], wrist[1]) + kinematics.WRIST_TO_TIP
    joints = kinematics.inverse(reach, 0.0, float(wrist[2]), 0.0)
    forearm = about_z(waist) @ about_y(joints[1] + joints[2])
    rest = forearm.T @ local
    joints[0] = waist
    joints[3] = math.atan2(rest[1, 0], -rest[2, 0])
    joints[4] = math.acos(min(max(rest[0, 0], -1.0), 1.0))
    joints[5] = math.atan2(rest[0, 1], rest[0, 2])
    return np.minimum(np.maximum(joints, kinematics.LOWER_LIMITS), kinematics.UPPER_LIMITS)
