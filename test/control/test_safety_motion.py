# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Motion inside velocity, acceleration and jerk caps, and the ways to rest behind it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from hbvla_ros.control.braking import Caps, ways_to_rest
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState
from hbvla_ros.errors import HbvlaError

PERIOD = 0.04


@pytest.fixture
def stage():
    """Two joints within 3 rad, 2 rad/s, 10 rad/s^2 and 100 rad/s^3."""
    two = np.ones(2)
    return SafetyStage(-3 * two, 3 * two, 2 * two, PERIOD, 0.2 * two, 10 * two, 100 * two)


def follow(stage, targets, state=None, start=0.0):
    """The commands (N, 2) for targets of both joints of an arm that follows, and the last state."""
    state = SafetyState() if state is None else state
    arm = np.full(2, start) if state.command is None else state.command
    commands = []
    for target in targets:
        target = None if target is None else np.full(2, float(target))
        arm, state = stage.command(state, target, arm, state.time + PERIOD)
        commands.append(arm)
    return np.array(commands), state


def assert_capped(commands, stage, start=0.0):
    """Velocity, acceleration and jerk as differences over the period, from rest at ``start``."""
    motion = np.vstack([np.full((3, 2), start), commands])
    for cap in (stage.velocity, stage.acceleration, stage.jerk):
        motion = np.diff(motion, axis=0) / stage.period
        assert (np.abs(motion) <= cap * (1 + 1e-6)).all()


@pytest.mark.parametrize('distance', [0.004, 0.05, 0.2, 1.0, 2.9, 3.0, 7.0])
def test_a_far_target_is_reached_inside_all_caps_without_overshoot(stage, distance):
    commands, state = follow(stage, [distance] * 60)
    assert_capped(commands, stage)
    end = min(distance, 3.0)
    assert commands[-1] == pytest.approx(end) and commands.max() <= end + 0.02 * distance
    assert state.at_rest
    # The quickest way of a smooth motion takes d/v + v/a + a/j; small ones have no flat parts.
    ticks = int(np.argmax(np.abs(commands[:, 0] - end) < 1e-3))
    assert ticks <= (end / 2.0 + 0.2 + 0.1) / PERIOD + 3


def test_a_motion_inside_the_caps_is_followed_exactly(stage):
    wave = 0.3 * np.sin(1.5 * PERIOD * np.arange(100)) ** 3
    commands, state = follow(stage, wave)
    np.testing.assert_array_equal(commands[:, 0], wave)
    assert state.interventions.total == 0


def test_after_a_jump_it_catches_up_with_a_moving_target_and_stays_with_it(stage):
    targets = 0.3 + 0.5 * PERIOD * np.arange(60)
    commands, state = follow(stage, targets)
    assert_capped(commands, stage)
    assert (np.abs(commands[:, 0] - targets)[20:] <= 1e-9).all()
    counts = state.interventions
    assert counts.velocity + counts.acceleration + counts.jerk >= 5 and counts.position == 0


@pytest.mark.parametrize('ticks', range(1, 30, 2))
def test_a_hold_after_fast_motion_comes_to_rest_inside_all_caps(stage, ticks):
    moving, state = follow(stage, [5.0] * ticks)
    path = state.path
    still, state = follow(stage, [None] * stage.limits.caps.rows, state)
    assert_capped(np.vstack([moving, still]), stage)
    # It is the path that was checked together with the last command, and it does not turn round.
    np.testing.assert_allclose(still[: len(path)], path, atol=1e-12)
    assert state.at_rest and (np.diff(still, axis=0) >= -1e-12).all()
    np.testing.assert_array_equal(state.held, still[-1])


def test_a_target_beyond_the_limit_ends_at_the_limit_at_rest(stage):
    commands, state = follow(stage, [9.0] * 60)
    assert commands.max() == 3.0 and commands[-1].tolist() == [3.0, 3.0]
    assert state.interventions.position == 60


def test_a_fast_target_that_ends_at_the_limit_is_slowed_down_in_time(stage):
    """No single step of it is too fast; only the stop at the end would be too hard."""
    targets = np.minimum(np.append(2.0 * PERIOD * np.linspace(0, 1, 20).cumsum(), [9.0] * 40), 3.0)
    targets[20:] = np.minimum(targets[19] + 2.0 * PERIOD * np.arange(1, 41), 3.0)
    commands, state = follow(stage, targets)
    assert_capped(commands, stage)
    assert commands.max() <= 3.0 and commands[-1] == pytest.approx(3.0)


def test_a_target_that_runs_to_and_fro_never_leaves_the_caps(stage):
    generator = np.random.default_rng(3)
    targets = generator.uniform(-4, 4, 300) * np.sign(np.sin(np.arange(300) / 7))
    commands, state = follow(stage, targets)
    assert_capped(commands, stage)
    assert np.abs(commands).max() <= 3.0


def test_kinds_are_counted_by_the_first_cap_that_a_joint_exceeds(stage):
    def counted(target):
        return follow(stage, [target])[1].interventions

    assert counted(0.09).velocity == 1 and counted(0.09).total == 1
    assert counted(0.03).acceleration == 1 and counted(0.03).total == 1
    assert counted(0.01).jerk == 1 and counted(0.01).total == 1
    assert counted(0.003).total == 0


def test_after_a_gap_the_motion_begins_from_rest(stage):
    """Nobody moved the arms on in the meantime, so they stand where they were sent last."""
    moving, state = follow(stage, [3.0] * 12)
    assert not state.at_rest
    command, after = stage.command(state, np.full(2, 3.0), state.command, state.time + 1.0)
    assert 0.0 < command[0] - moving[-1, 0] <= 100 * PERIOD**3 * (1 + 1e-6)
    held, _ = stage.command(state, None, state.command, state.time + 1.0)
    np.testing.assert_array_equal(held, moving[-1])
    command, _ = stage.command(state, np.full(2, 3.0), state.command, state.time + 4 * PERIOD)
    assert command[0] - moving[-1, 0] == pytest.approx(np.diff(moving[-2:, 0])[0], rel=0.3)


def stepped(stage, times):
    """At which of the times the command of a fast motion moved on."""
    state, arm = SafetyState(), np.full(2, -3.0)
    for _ in range(12):
        arm, state = stage.command(state, np.full(2, 3.0), arm, state.time + PERIOD)
    first, moved = state.time, []
    for now in times:
        command, state = stage.command(state, np.full(2, 3.0), arm, first + now)
        moved.append(bool((command != arm).any()))
        arm = command
    return moved


@pytest.mark.parametrize('share', [1 / 8, 0.3, 0.6, 0.8])
def test_more_ticks_do_not_make_it_faster(stage, share):
    times = np.arange(1, 200) * share * PERIOD
    times = times[times < 20 * PERIOD]
    assert sum(stepped(stage, times)) <= 20 / 0.9 + 1


@pytest.mark.parametrize('drift', [-0.002, 0.0, 0.002])
def test_jitter_and_drift_of_a_timer_cost_no_command(stage, drift):
    generator = np.random.default_rng(7)
    times = np.arange(1, 25) * (1 + drift) + generator.uniform(-0.2, 0.2, 24)
    assert all(stepped(stage, times * PERIOD))


def test_grippers_have_a_velocity_cap_only():
    one = np.ones(1)
    stage = SafetyStage(0 * one, one, 2.5 * one, PERIOD, one)
    arm, state, path = np.zeros(1), SafetyState(), []
    for tick, target in enumerate([1.0] * 12 + [0.0] * 12):
        arm, state = stage.command(state, np.array([target]), arm, PERIOD * tick)
        path.append(arm[0])
    up = np.minimum(0.1 * np.arange(1, 13), 1.0)
    np.testing.assert_allclose(path, [*up, *(1.0 - up)], atol=1e-12)


def test_generous_caps_change_nothing():
    """The simulated robot moves as if there were velocity limits alone."""
    profile = RobotProfile.load('aloha_sim')
    stage, cap = SafetyStage.of(profile), profile.velocity / profile.control_rate
    generator = np.random.default_rng(5)
    state, target = SafetyState(), np.array(profile.start_pose)
    expected = arm = target
    for tick in range(300):
        target = target + generator.normal(0.0, 0.05, len(target))
        if tick % 40 == 0:
            target = generator.uniform(profile.lower, profile.upper)
        inside = np.clip(target, stage.lower, stage.upper)
        within = np.abs(inside - expected) <= cap
        capped = expected + np.clip(inside - expected, -cap, cap)
        expected = np.where(within, inside, capped)
        arm, state = stage.command(state, target, arm, PERIOD * tick)
        np.testing.assert_allclose(arm, expected, atol=1e-12)


def test_limits_that_allow_no_stop_are_refused():
    profile = RobotProfile.load('aloha_sim')
    arms = tuple(replace(arm, acceleration=(1e-3,) * 6) for arm in profile.arms)
    with pytest.raises(HbvlaError, match='aloha_sim: from full speed .* raise acceleration_limits'):
        SafetyStage.of(replace(profile, arms=arms))


def test_a_tick_costs_well_under_a_millisecond():
    """Processor time, for the machine that runs the tests may be busy."""
    profile = RobotProfile.load('agilex_piper_dual')
    stage, state, arm = SafetyStage.of(profile), SafetyState(), np.array(profile.start_pose)
    began = time.process_time()
    for tick in range(300):
        arm, state = stage.command(state, profile.start_pose + np.sin(tick), arm, tick / 30.0)
    assert (time.process_time() - began) / 300 < 2e-3


@pytest.mark.parametrize('period', [0.001, 0.005, 0.02, 0.04])
def test_every_way_to_rest_ends_at_rest_inside_the_caps(period):
    generator = np.random.default_rng(int(1e4 * period))
    count = 300
    velocity, acceleration, jerk = (
        10 ** generator.uniform(low, high, count) for low, high in ((-1, 1), (0.5, 2.5), (2.0, 5.0))
    )
    caps = Caps.of(velocity, acceleration, jerk, period)
    start = generator.choice([-1, 0, 1, 0.37, -0.62], count) * caps.velocity
    change = generator.choice([-1, 0, 1, 0.51, -0.93], count) * caps.acceleration
    steps = ways_to_rest(caps, start, change)
    changes = np.diff(steps, axis=0, prepend=start[None])
    bends = np.diff(changes, axis=0, prepend=change[None], append=0 * change[None])
    assert (np.abs(changes) <= caps.acceleration * (1 + 1e-6)).all()
    assert (np.abs(bends) <= caps.jerk * (1 + 1e-6)).all()
    np.testing.assert_allclose(steps[-1], 0.0, atol=1e-12)
