# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hbvla_ros.sim import arms, kinematics
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation

places = st.tuples(st.floats(0.2, 0.45), st.floats(-0.15, 0.15), st.floats(0.015, 0.2))


@given(places)
def test_inverse_then_forward_returns_the_place(place):
    x, y, z, pitch = kinematics.forward(kinematics.inverse(*place, math.pi / 2))
    np.testing.assert_allclose((x, y, z), place, atol=1e-9)
    np.testing.assert_allclose(pitch, math.pi / 2, atol=1e-9)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-1, 2), st.floats(-3, 3))
def test_any_request_gives_joints_within_limits(x, y, z, pitch):
    joints = kinematics.inverse(x, y, z, pitch)
    assert np.isfinite(joints).all()
    assert (joints >= kinematics.LOWER_LIMITS).all() and (joints <= kinematics.UPPER_LIMITS).all()


def test_formulas_agree_with_the_scene_for_both_arms():
    simulation = AlohaSimulation()
    pose = START_ACTION.copy()
    pose[0:6] = kinematics.inverse(0.30, 0.10, 0.12, 1.2)
    pose[7:13] = kinematics.inverse(0.25, -0.08, 0.20, math.pi / 2)
    simulation.reset(1, joints=pose)
    left, right = simulation.tip_positions()
    np.testing.assert_allclose(left, (-arms.BASE_X + 0.30, arms.BASE_Y + 0.10, 0.12), atol=1e-4)
    np.testing.assert_allclose(right, (arms.BASE_X - 0.25, arms.BASE_Y + 0.08, 0.20), atol=1e-4)
