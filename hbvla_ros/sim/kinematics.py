# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Closed-form kinematics of one ViperX arm with its forearm roll at zero.

Closed-loop specification, section 1. Angles in rad, lengths in m, in the arm's base frame: x
points forward from the base, z up.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SHOULDER_HEIGHT = 0.12705
UPPER_ARM = math.hypot(0.3, 0.05955)
UPPER_ARM_ANGLE = math.atan2(0.05955, 0.3)
FOREARM = 0.3
WRIST_TO_TIP = 0.069744 + 0.138

LOWER_LIMITS = np.array([-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158])
UPPER_LIMITS = np.array([3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158])


def inverse(x: float, y: float, z: float, pitch: float, yaw: float = 0.0) -> NDArray[np.float64]:
    """Joint angles that put the grasp point at a position.

    Args:
        x: forward, m.
        y: to the left, m.
        z: above the table, m.
        pitch: downward angle of the gripper, pi/2 points at the table.
        yaw: turn of the finger axis about the vertical when the gripper points down.

    Returns:
        (6,) waist, shoulder, elbow, forearm roll, wrist angle, wrist rotate, inside the joint
        limits. A position out of reach gives the nearest stretched arm.
    """
    waist = math.atan2(y, x)
    forward = math.hypot(x, y) - WRIST_TO_TIP * math.cos(pitch)
    up = z + WRIST_TO_TIP * math.sin(pitch) - SHOULDER_HEIGHT
    distance = math.hypot(forward, up)
    distance = min(max(distance, 0.12), UPPER_ARM + FOREARM - 1e-4)
    elevation = math.atan2(up, forward)
    # Law of cosines at the shoulder and at the elbow; the elbow stays up.
    at_shoulder = math.acos((UPPER_ARM**2 + distance**2 - FOREARM**2) / (2 * UPPER_ARM * distance))
    at_elbow = math.acos((UPPER_ARM**2 + FOREARM**2 - distance**2) / (2 * UPPER_ARM * FOREARM))
    upper_elevation = elevation + at_shoulder
    forearm_elevation = upper_elevation - (math.pi - at_elbow)
    shoulder = math.pi / 2 - upper_elevation - UPPER_ARM_ANGLE
    elbow = -forearm_elevation - shoulder
    wrist = pitch + forearm_elevation
    joints = np.array([waist, shoulder, elbow, 0.0, wrist, waist - yaw])
    return np.minimum(np.maximum(joints, LOWER_LIMITS), UPPER_LIMITS)


def forward(joints: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Position and pitch of the grasp point for six joint angles with zero forearm roll.

    Returns:
        x, y, z in m and the downward pitch in rad.
    """
    shoulder = float(joints[1])
    forearm = shoulder + float(joints[2])
    pitch = forearm + float(joints[4])
    reach = (
        UPPER_ARM * math.sin(shoulder + UPPER_ARM_ANGLE)
        + FOREARM * math.cos(forearm)
        + WRIST_TO_TIP * math.cos(pitch)
    )
    height = (
        SHOULDER_HEIGHT
        + UPPER_ARM * math.cos(shoulder + UPPER_ARM_ANGLE)
        - FOREARM * math.sin(forearm)
        - WRIST_TO_TIP * math.sin(pitch)
    )
    waist = float(joints[0])
    return reach * math.cos(waist), reach * math.sin(waist), height, pitch
