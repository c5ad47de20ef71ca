# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbvla_ros.evaluation.suites import rotations

ANGLES = st.floats(-3.1, 3.1)
UNIT = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


def turn(axis: int, angle: float) -> np.ndarray:
    """Rotation matrix about one of the fixed axes, written out."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def matrix_of_axis_angle(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def test_axis_angle_takes_w_last_and_keeps_the_sign_of_the_quaternion():
    half = math.sqrt(0.5)
    np.testing.assert_allclose(
        rotations.axis_angle_of_xyzw([0, 0, half, half]), [0, 0, math.pi / 2], atol=1e-12
    )
    # LIBERO's data has it so: -q is the same rotation the other way round, 2 pi - angle.
    np.testing.assert_allclose(
        rotations.axis_angle_of_xyzw([0, 0, -half, -half]), [0, 0, -1.5 * math.pi], atol=1e-12
    )
    np.testing.assert_array_equal(rotations.axis_angle_of_xyzw([0, 0, 0, 1.0000001]), np.zeros(3))


@given(UNIT)
def test_axis_angle_is_the_rotation_of_the_quaternion(quaternion):
    x, y, z, w = np.array(quaternion) / np.linalg.norm(quaternion)
    vector = rotations.axis_angle_of_xyzw([x, y, z, w])
    np.testing.assert_allclose(
        matrix_of_axis_angle(vector), rotations.matrix_of_wxyz([w, x, y, z]), atol=1e-6
    )


@pytest.mark.parametrize('axis', range(3))
def test_the_quaternion_of_a_matrix_has_w_first(axis):
    quaternion = np.zeros(4)
    quaternion[0], quaternion[1 + axis] = math.cos(0.4), math.sin(0.4)
    np.testing.assert_allclose(
        rotations.matrix_of_wxyz(3 * quaternion), turn(axis, 0.8), atol=1e-12
    )


@given(ANGLES, st.floats(-1.5, 1.5), ANGLES)
def test_roll_pitch_and_yaw_turn_about_the_fixed_axes_in_this_order(roll, pitch, yaw):
    matrix = turn(2, yaw) @ turn(1, pitch) @ turn(0, roll)
    np.testing.assert_allclose(
        rotations.roll_pitch_yaw_of_matrix(matrix), [roll, pitch, yaw], atol=1e-7
    )
    vector = rotations.axis_angle_of_roll_pitch_yaw([roll, pitch, yaw])
    assert np.linalg.norm(vector) <= math.pi + 1e-9
    np.testing.assert_allclose(matrix_of_axis_angle(vector), matrix, atol=1e-6)


@given(ANGLES)
def test_straight_up_and_down_all_of_the_turn_is_roll(angle):
    for pitch in (math.pi / 2, -math.pi / 2):
        matrix = turn(1, pitch) @ turn(0, angle)
        roll, again, yaw = rotations.roll_pitch_yaw_of_matrix(matrix)
        assert yaw == 0.0
        np.testing.assert_allclose(turn(1, again) @ turn(0, roll), matrix, atol=1e-6)


@given(UNIT)
def test_matrix_and_quaternion_are_inverse(quaternion):
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    matrix = rotations.matrix_of_wxyz([w, x, y, z])
    again = rotations.xyzw_of_matrix(matrix)
    assert again[3] >= 0 and np.linalg.norm(again) == pytest.approx(1)
    np.testing.assert_allclose(rotations.matrix_of_wxyz(np.roll(again, 1)), matrix, atol=1e-9)
