# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Rotations in the orders that the suites use; the order is in every name, angles are in rad."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def axis_angle_of_xyzw(quaternion: ArrayLike) -> Values:
    """Unit quaternion (x, y, z, w) -> axis times angle (3,).

    As LIBERO's proprioception has it (spec section 7.1): w is clipped to -1..1, the angle is
    2 acos(w) between 0 and 2 pi, and q and -q are told apart: their angles add up to 2 pi.
    """
    *axis, w = np.asarray(quaternion, dtype=np.float64)
    w = min(1.0, max(-1.0, float(w)))
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.array(axis) * (2.0 * math.acos(w) / sine)


def matrix_of_wxyz(quaternion: ArrayLike) -> Values:
    """Quaternion (w, x, y, z) of any length -> rotation matrix (3, 3)."""
    values = np.asarray(quaternion, dtype=np.float64)
    w, x, y, z = values / np.linalg.norm(values)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def xyzw_of_matrix(matrix: Values) -> Values:
    """Rotation matrix (3, 3) -> unit quaternion (x, y, z, w) with w at least 0."""
    trace = float(np.trace(matrix))
    # The largest of the four is computed first: dividing by a small one would lose digits.
    diagonal = np.array([*np.diag(matrix), trace])
    largest = int(np.argmax(diagonal))
    quaternion = np.empty(4)
    if largest == 3:
        quaternion[:3] = [matrix[(i + 2) % 3, (i + 1) % 3] - matrix[(i + 1) % 3, (i + 2) % 3]
                          for i in range(3)]  # fmt: skip
        quaternion[3] = 1.0 + trace
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        quaternion[i] = 1.0 - trace + 2.0 * matrix[i, i]
        quaternion[j] = matrix[j, i] + matrix[i, j]
        quaternion[k] = matrix[k, i] + matrix[i, k]
        quaternion[3] = matrix[k, j] - matrix[j, k]
    quaternion /= np.linalg.norm(quaternion)
    return -quaternion if quaternion[3] < 0 else quaternion


def roll_pitch_yaw_of_matrix(matrix: Values) -> Values:
    """Rotation matrix (3, 3) -> (roll, pitch, yaw), turned about the fixed x, y, z in turn."""
    across = math.hypot(matrix[0, 0], matrix[1, 0])
    pitch = math.atan2(-matrix[2, 0], across)
    if across < 1e-9:
        # Looking straight up or down, roll and yaw turn about the same axis: all of it is roll.
        return np.array([math.atan2(-matrix[1, 2], matrix[1, 1]), pitch, 0.0])
    roll = math.atan2(matrix[2, 1], matrix[2, 2])
    return np.array([roll, pitch, math.atan2(matrix[1, 0], matrix[0, 0])])


def axis_angle_of_roll_pitch_yaw(angles: ArrayLike) -> Values:
    """(roll, pitch, yaw) about the fixed x, y, z in turn -> axis times angle (3,), 0 to pi."""
    roll, pitch, yaw = (0.5 * float(angle) for angle in np.asarray(angles, dtype=np.float64))
    cr, cp, cy = math.cos(roll), math.cos(pitch), math.cos(yaw)
    sr, sp, sy = math.sin(roll), math.sin(pitch), math.sin(yaw)
    quaternion = np.array(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ]
    )
    return axis_angle_of_xyzw(-quaternion if quaternion[3] < 0 else quaternion)
