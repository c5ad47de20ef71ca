# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Commands ahead of time: those that the stage gives later, and a way to rest behind them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hbvla_ros.control.lookahead import look_ahead, no_targets
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState

PROFILE = RobotProfile.load('ros2_control_dual_jtc')
STAGE = SafetyStage.of(PROFILE)
PERIOD = STAGE.period


def wave(now):
    """A target that moves within the caps."""
    target = PROFILE.start_pose.copy()
    target[[0, 7]] += 0.2 * np.sin(2.0 * now)
    return target


@pytest.fixture
def moving():
    state, now, command = SafetyState(), 0.0, PROFILE.start_pose
    for index in range(40):
        now = index * PERIOD
        command, state = STAGE.command(state, wave(now), command, now)
    return state, now


def test_they_are_what_the_stage_gives_when_their_time_comes(moving):
    state, now = moving
    before = dataclasses.replace(state)
    ahead, followed = look_ahead(STAGE, state, lambda t, hold: (wave(now + t), None), 0.4)
    assert followed >= 4 and state.command is before.command
    command = state.command
    for index in range(followed):
        at = now + (index + 1) * PERIOD
        command, state = STAGE.command(state, wave(at), command, at)
        np.testing.assert_array_equal(ahead[index], command)
    # From there on nobody knows more: the stage's own way to rest.
    np.testing.assert_array_equal(ahead[followed:], state.path)
    np.testing.assert_array_equal(ahead[-1], ahead[-2])


def test_without_targets_it_is_the_way_to_rest(moving):
    state, _ = moving
    ahead, followed = look_ahead(STAGE, state, no_targets, 0.4)
    assert followed == 0
    np.testing.assert_array_equal(ahead, state.path)


def test_targets_that_end_are_followed_to_their_end(moving):
    state, now = moving

    def three(t, hold):
        return (wave(now + t) if t < 3.5 * PERIOD else None), None

    assert look_ahead(STAGE, state, three, 0.4)[1] == 3


@pytest.mark.parametrize('horizon', [0.02, 0.2, 0.4, 1.0])
def test_the_way_ends_within_the_horizon_where_braking_can(moving, horizon):
    state, now = moving
    ahead, followed = look_ahead(STAGE, state, lambda t, hold: (wave(now + t), None), horizon)
    assert 2 <= followed <= 8
    moves = np.flatnonzero((np.abs(np.diff(ahead, axis=0)) > 1e-9).any(axis=1))
    assert moves[-1] + 2 <= max(horizon / PERIOD + 2, followed + STAGE.limits.caps.rows)
    if horizon == 1.0:
        assert followed == 8


def test_a_stage_that_stops_ahead_of_time_is_followed_no_further(moving):
    state, now = moving

    def broken(t, hold):
        return np.full(14, np.nan) if t > 2.5 * PERIOD else wave(now + t), None

    stage = dataclasses.replace(
        STAGE, watch=dataclasses.replace(STAGE.watch, clamp_stop=2.0 * PERIOD)
    )
    ahead, followed = look_ahead(stage, state, broken, 1.0)
    assert np.isfinite(ahead).all() and followed < 8
    np.testing.assert_array_equal(ahead[-1], ahead[-2])
