# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Slow starts, and the reasons for which the safety stage stops the arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState
from hbvla_ros.control.safety_watch import Watch

PERIOD = 0.1


def watch(**bounds):
    """The bounds of a joint and a gripper."""
    vectors = {
        name: np.array([bounds.pop(name), np.inf])
        for name in ('lag_stop', 'start_mismatch', 'slack')
        if name in bounds
    }
    return Watch(**vectors, **bounds, names=('elbow', 'gripper'))


@pytest.fixture
def stage():
    """1 rad/s with mild caps; limits that nothing here reaches."""
    return SafetyStage(
        np.array([-3.0, 0.0]),
        np.array([3.0, 1.0]),
        np.array([1.0, 10.0]),
        PERIOD,
        np.array([0.2, 1.0]),
        np.array([10.0, np.inf]),
        np.array([100.0, np.inf]),
    )


def run(stage, targets, measured=None, state=None, goal=None):
    """Commands and states of ticks a period apart; the arm follows unless ``measured`` is given."""
    state, arm, passed = state or SafetyState(), np.zeros(2), []
    for target in targets:
        arm = arm if state.command is None else state.command
        at = arm if measured is None else np.array(measured)
        target = None if target is None else np.array(target)
        command, state = stage.command(state, target, at, state.time + PERIOD, goal)
        passed.append((command, state))
    return passed


MOVING = [[0.04 * i, 0.0] for i in range(1, 60)]


def test_a_joint_that_does_not_follow_stops_the_arms(stage):
    stage = replace(stage, watch=watch(lag_stop=0.3, lag_time=0.45))
    passed = run(stage, MOVING, measured=[0.0, 0.0])
    reasons = [state.stop for _, state in passed]
    stopped = next(i for i, reason in enumerate(reasons) if reason)
    # More than 0.3 rad behind from the 8th command on, which the 9th tick sees first.
    assert stopped == 12
    assert reasons[stopped].startswith('elbow does not follow: 0.')
    assert passed[-1][1].interventions.lag == 5
    # It is held where it is, not where it should be, and targets are ignored from then on.
    np.testing.assert_allclose(passed[-1][0], [0.0, 0.0], atol=1e-9)
    assert passed[-1][1].stop == reasons[stopped] and passed[-1][1].target is None


def test_a_joint_that_catches_up_in_time_goes_on(stage):
    stage = replace(stage, watch=watch(lag_stop=0.3, lag_time=0.45))
    state, arm = SafetyState(), np.zeros(2)
    for tick, target in enumerate(MOVING):
        blocked = tick % 12 < 11
        _, state = stage.command(state, np.array(target), arm, PERIOD * tick)
        arm = arm if blocked else state.command
        assert state.lagging < 0.45
    assert not state.stop and state.interventions.lag > 3


def test_a_gripper_closed_on_an_object_is_no_lag(stage):
    stage = replace(stage, watch=watch(lag_stop=0.3, lag_time=0.2))
    state = SafetyState()
    for tick, target in enumerate(MOVING):
        arm = np.zeros(2) if state.command is None else np.array([state.command[0], 0.7])
        _, state = stage.command(state, np.array(target), arm, PERIOD * tick)
    assert not state.stop and state.interventions.lag == 0


@pytest.mark.parametrize('measured', [None, np.array([np.nan, 0.0])])
def test_an_unknown_pose_is_no_lag(stage, measured):
    """Lost joint states are somebody else's fault, with a bound of its own."""
    stage = replace(stage, watch=watch(lag_stop=0.3, lag_time=0.2))
    state = SafetyState(np.zeros(2))
    for tick, target in enumerate(MOVING, start=1):
        _, state = stage.command(state, np.array(target), measured, PERIOD * tick)
    assert not state.stop


def test_targets_that_are_clamped_all_the_time_stop_the_arms(stage):
    stage = replace(stage, watch=watch(slack=0.01, clamp_stop=1.95))
    passed = run(stage, [[9.0, 1.0]] * 60)
    stopped = next(i for i, (_, state) in enumerate(passed) if state.stop)
    assert stopped == 20  # the first tick begins to count
    assert passed[stopped][1].stop.startswith('targets were clamped for 2.0 s, now elbow from 9 to')
    command, state = passed[-1]
    assert state.at_rest and 0.0 < command[0] < 3.0
    # A new state begins anew and keeps the counters.
    again = SafetyState(interventions=state.interventions)
    command, after = stage.command(again, np.array([0.5, 1.0]), command, 99.0)
    assert not after.stop and after.interventions.position >= 20


@pytest.mark.parametrize('holds', [False, True])
def test_one_sound_target_or_a_hold_interrupts_the_clamping(stage, holds):
    no_caps = np.full(2, np.inf)
    bounds = watch(slack=0.01, clamp_stop=0.55)
    stage = replace(stage, watch=bounds, acceleration=no_caps, jerk=no_caps)
    state, arm = SafetyState(), np.zeros(2)
    for tick in range(100):
        far = np.array([9.0 * (-1) ** (tick // 20), 0.0])
        sound = None if holds else arm
        arm, state = stage.command(state, sound if tick % 5 == 4 else far, arm, PERIOD * tick)
        assert not state.stop
    assert state.interventions.position == 80


def test_a_gripper_beyond_its_travel_is_not_clamping(stage):
    """Policies say 1.02 for open as a matter of course."""
    stage = replace(stage, watch=watch(slack=0.01, clamp_stop=0.5))
    command, state = run(stage, [[0.0, 1.02]] * 40)[-1]
    assert not state.stop and command[1] == 1.0 and state.interventions.position == 40


def test_targets_that_are_never_finite_stop_the_arms(stage):
    stage = replace(stage, watch=watch(slack=0.01, clamp_stop=0.95))
    passed = run(stage, [[0.0, np.nan]] * 20)
    stopped = next(i for i, (_, state) in enumerate(passed) if state.stop)
    assert stopped == 10  # the first tick begins to count
    assert passed[stopped][1].stop == 'targets were clamped for 1.0 s, now gripper from nan to 0'
    assert passed[-1][1].interventions.not_finite == 11


def test_a_start_far_from_the_target_is_slow_until_it_is_reached(stage):
    bounds = watch(start_mismatch=0.3, ramp_velocity=np.full(2, 0.2), slack=0.01, clamp_stop=0.5)
    stage = replace(stage, watch=bounds)
    passed = run(stage, [[1.0, 1.0]] * 70)
    path = np.array([command for command, _ in passed])
    steps = np.diff(path, axis=0, prepend=0.0)
    assert (steps <= 0.2 * PERIOD + 1e-9).all()
    np.testing.assert_allclose(path[-1], [1.0, 1.0])
    state = passed[-1][1]
    # The last step of the ramp is not the ramp's any more.
    assert passed[0][1].ramping and not state.ramping
    assert 45 <= state.interventions.ramp <= 60 and state.interventions.velocity <= 1
    assert not state.stop  # the ramp is no clamping
    # From then on it is as fast as ever.
    later = run(stage, [[2.0, 0.0]] * 20, state=state)
    assert np.diff([command[0] for command, _ in later]).max() == pytest.approx(0.1)


def test_a_start_near_the_target_is_as_fast_as_ever(stage):
    bounds = watch(start_mismatch=0.3, ramp_velocity=np.full(2, 0.02))
    passed = run(replace(stage, watch=bounds), [[0.29, 1.0]] * 20)
    assert passed[-1][1].interventions.ramp == 0
    np.testing.assert_allclose(passed[-1][0], [0.29, 1.0])


def test_every_hold_is_followed_by_a_start(stage):
    bounds = watch(start_mismatch=0.3, ramp_velocity=np.full(2, 0.2))
    stage = replace(stage, watch=bounds)
    state = run(stage, [[0.1, 0.0]] * 10)[-1][1]
    assert not run(stage, [[0.9, 0.0]], state=state)[-1][1].ramping  # no start: it goes on
    state = run(stage, [None] * 5, state=state)[-1][1]
    assert run(stage, [[0.9, 0.0]], state=state)[-1][1].ramping


def test_the_goal_behind_a_fade_tells_how_far_a_start_is(stage):
    """The first target of a fade is where the arm is, whatever it fades to."""
    bounds = watch(start_mismatch=0.3, ramp_velocity=np.full(2, 0.2))
    stage, far = replace(stage, watch=bounds), np.array([1.0, 0.0])
    fade = [[min(0.4 * i, 1.0), 0.0] for i in range(50)]
    path = np.array([command for command, _ in run(stage, fade, goal=far)])
    assert (np.diff(path[:, 0]) <= 0.2 * PERIOD + 1e-9).all()
    quick = np.array([command for command, _ in run(stage, fade)])
    assert np.diff(quick[:, 0]).max() == pytest.approx(0.1)


def test_a_target_that_runs_ahead_of_the_ramp_is_let_go_when_it_is_near(stage):
    bounds = watch(start_mismatch=0.3, ramp_velocity=np.full(2, 0.2))
    stage = replace(stage, watch=bounds)
    # It comes towards the arm, passes it and runs off at more than the ramp's speed.
    targets = [[0.8 - 0.05 * i, 0.0] for i in range(40)]
    passed = run(stage, targets)
    assert passed[0][1].ramping and not passed[-1][1].ramping
    np.testing.assert_allclose(passed[-1][0], targets[-1], atol=1e-9)


def test_the_bounds_of_a_profile_are_of_its_joints():
    profile = RobotProfile.load('agilex_piper_dual')
    bounds, safety = SafetyStage.of(profile).watch, profile.safety
    joints = ~profile.is_gripper
    assert (bounds.lag_stop[joints] == safety.lag_stop).all()
    assert (bounds.start_mismatch[joints] == safety.start_mismatch).all()
    # Within the margin of a limit a target is sound.
    assert (bounds.slack[joints] > safety.position_margin).all()
    for vector in (bounds.lag_stop, bounds.start_mismatch, bounds.slack):
        assert np.isinf(vector[profile.is_gripper]).all()
    assert (bounds.ramp_velocity == safety.ramp_velocity).all()
    assert bounds.lag_time == safety.lag_time and bounds.clamp_stop == safety.clamp_stop
    assert bounds.names == profile.action_names
