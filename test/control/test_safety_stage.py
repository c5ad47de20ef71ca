# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The safety stage, case by case, and the latency tracker beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hbvla_ros.control.latency import LatencyTracker
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState


@pytest.fixture
def stage():
    return SafetyStage(
        lower=np.array([-1.0, 0.0]),
        upper=np.array([1.0, 1.0]),
        velocity=np.array([1.0, 10.0]),
        period=0.1,
        lag_bound=np.array([0.2, 1.0]),
    )


ZERO = np.zeros(2)


def test_velocity_is_capped_from_the_last_command(stage):
    state = SafetyState(ZERO, 0.0)
    command, state = stage.command(state, np.array([0.9, 0.0]), ZERO, 0.1)
    np.testing.assert_allclose(command, [0.1, 0.0])
    command, state = stage.command(state, np.array([0.15, 0.0]), ZERO, 0.2)
    np.testing.assert_allclose(command, [0.15, 0.0])
    assert state.interventions.velocity == 1 and state.interventions.total == 1


def test_position_is_clamped_and_counted(stage):
    state = SafetyState(np.array([0.98, 0.0]), 0.0)
    command, state = stage.command(state, np.array([1.5, 0.0]), np.array([0.98, 0.0]), 0.1)
    np.testing.assert_allclose(command, [1.0, 0.0])
    assert state.interventions.position == 1


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_one_bad_number_holds_both_arms(stage, bad):
    last = np.array([0.1, 0.5])
    command, state = stage.command(SafetyState(last, 0.0), np.array([0.15, bad]), last, 0.1)
    np.testing.assert_array_equal(command, last)
    assert state.interventions.not_finite == 1


def test_hold_keeps_the_last_command_that_the_arm_follows(stage):
    last = np.array([0.5, 0.0])
    # The gripper is stopped by an object: its command must stay, or it would let go.
    hold = stage.hold(SafetyState(last, 0.0), np.array([0.35, 0.4]))
    np.testing.assert_array_equal(hold, last)


def test_hold_is_the_measured_pose_when_the_arm_is_elsewhere(stage):
    hold = stage.hold(SafetyState(np.array([0.5, 0.0]), 0.0), np.array([-0.5, 0.0]))
    np.testing.assert_array_equal(hold, [-0.5, 0.0])


def test_hold_goes_all_the_way_to_the_measured_pose_and_stays(stage):
    state, measured = SafetyState(np.array([0.5, 0.0]), 0.0), np.array([-0.5, 0.0])
    for tick in range(1, 20):
        command, state = stage.command(state, None, measured + 0.01 * (tick % 2), 0.1 * tick)
    assert command[0] == pytest.approx(-0.49)
    _, state = stage.command(state, np.array([-0.4, 0.0]), measured, 2.0)
    assert state.held is None


def test_nothing_is_sent_while_nothing_is_known(stage):
    command, state = stage.command(SafetyState(), np.array([0.5, 0.5]), None, 0.0)
    assert command is None and state.command is None
    command, _ = stage.command(SafetyState(), None, np.array([np.nan, 0.0]), 0.0)
    assert command is None


def test_first_command_starts_at_the_measured_pose_not_at_zero(stage):
    measured = np.array([0.7, 1.0])
    command, _ = stage.command(SafetyState(), np.array([-1.0, 1.0]), measured, 50.0)
    np.testing.assert_allclose(command, [0.6, 1.0])
    command, _ = stage.command(SafetyState(), None, measured, 50.0)
    np.testing.assert_array_equal(command, measured)


@pytest.mark.parametrize('target', [None, np.array([0.5, 1.0])])
def test_an_arm_outside_its_limits_comes_back_in_capped_steps(stage, target):
    state, arm, path = SafetyState(), np.array([-1.65, 1.3]), []
    for tick in range(8):
        arm, state = stage.command(state, target, arm, 0.1 * tick)
        path.append(arm[0])
    np.testing.assert_allclose(path[:6], [-1.55, -1.45, -1.35, -1.25, -1.15, -1.05])
    assert path[7] == pytest.approx(-1.0 if target is None else -0.85) and arm[1] == 1.0


def test_hold_is_inside_the_limits_also_on_the_way_back(stage):
    outside = np.array([-1.1, 0.0])
    for measured in (None, outside):
        hold = stage.hold(SafetyState(outside, 0.0), measured)
        np.testing.assert_array_equal(hold, [-1.0, 0.0])


@pytest.mark.parametrize('number', [-90.0, 3.5, 1e300, np.nan])
def test_a_measurement_that_cannot_be_true_moves_nothing(stage, number):
    measured, last = np.array([number, 0.0]), np.array([0.3, 0.0])
    assert stage.doubted(measured).tolist() == [True, False]
    assert stage.command(SafetyState(), None, measured, 0.0)[0] is None
    command, _ = stage.command(SafetyState(last, 0.0), None, measured, 0.1)
    np.testing.assert_array_equal(command, last)


def test_lost_measurement_holds_the_last_command(stage):
    last = np.array([0.5, 0.25])
    command, _ = stage.command(SafetyState(last, 0.0), None, None, 0.1)
    np.testing.assert_array_equal(command, last)


@pytest.mark.parametrize(
    'now, allowed',
    [(-5.0, 0.0), (0.0, 0.0), (0.04, 0.0), (0.06, 0.1), (0.2, 0.1), (9.0, 0.1), (np.nan, 0.0)],
)
def test_odd_clocks_never_allow_a_leap(stage, now, allowed):
    command, _ = stage.command(SafetyState(ZERO, 0.0), np.array([0.9, 0.0]), ZERO, now)
    assert command[0] == pytest.approx(allowed)


def test_the_stage_does_not_change_what_it_is_given(stage):
    last, target, measured = ZERO.copy(), np.array([0.9, 0.9]), ZERO.copy()
    stage.command(SafetyState(last, 0.0), target, measured, 0.1)
    assert not last.any() and not measured.any() and target.tolist() == [0.9, 0.9]


def test_stage_of_a_profile_keeps_the_margin_on_joints_only():
    profile = RobotProfile.load('aloha_sim')
    profile = replace(profile, safety=replace(profile.safety, position_margin=0.1))
    stage = SafetyStage.of(profile)
    np.testing.assert_allclose(stage.lower[:6], profile.lower[:6] + 0.1)
    np.testing.assert_allclose(stage.upper[:6], profile.upper[:6] - 0.1)
    assert stage.lower[6] == 0.0 and stage.upper[6] == 1.0
    assert stage.period == pytest.approx(1.0 / profile.control_rate)


def test_latency_ignores_warm_up_and_forgets():
    tracker = LatencyTracker(window=4, warm_up=2)
    assert tracker.percentile(95) is None
    for seconds in (9.0, 8.0, 1.0, 1.0, 1.0, 1.0):
        tracker.add(seconds)
    assert tracker.percentile(95) == pytest.approx(1.0)
    for seconds in (2.0, 2.0, 2.0, 2.0, float('nan'), -1.0):
        tracker.add(seconds)
    assert tracker.percentile(50) == pytest.approx(2.0) and tracker.count == 4
