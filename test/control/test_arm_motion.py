# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Starting over in the middle of a motion."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.control.arm_motion import ArmMotion
from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk

PROFILE = RobotProfile.load('aloha_sim')
PERIOD = 1.0 / PROFILE.control_rate
START = PROFILE.start_pose
FIRST = np.arange(len(START)) == 0


def drive(motion, ticks, first=0, lag=2, known=True):
    """Commands of so many ticks; what is measured lags behind them."""
    commands = [START] * (lag + 1)
    for tick in range(first, first + ticks):
        now = tick * PERIOD
        measured = commands[-1 - lag] if known else None
        command = motion.advance(now, now, measured, True)
        commands.append(commands[-1] if command is None else command)
    return commands[lag + 1 :]


@pytest.fixture
def moving():
    """Arms that turn as fast as they may, and the commands so far."""
    clock = ChunkClock(PROFILE.is_gripper, 0.0, 0.5)
    motion = ArmMotion(PROFILE, clock)
    motion.advance(-PERIOD, -PERIOD, START, True)
    rows = START + np.outer(np.arange(25) * PERIOD * PROFILE.velocity[0], FIRST)
    clock.offer(ActionChunk(rows, 0.0, PERIOD, 0.0, '', 'x'), 0.0)
    commands = drive(motion, 10)
    assert commands[-1][0] - commands[-3][0] > PROFILE.safety.lag_bound
    return motion, commands


@pytest.mark.parametrize('lag', [0, 1, 3, 6])
def test_no_leap_however_far_behind_the_arms_are(moving, lag):
    motion, before = moving
    measured = before[-1 - lag]
    motion.hold_here(measured)
    after = [motion.advance(t * PERIOD, t * PERIOD, measured, True) for t in range(10, 30)]
    steps = np.abs(np.diff([before[-1], *after], axis=0))
    assert (steps <= PROFILE.velocity * PERIOD + 1e-9).all()
    np.testing.assert_allclose(after[-1], measured, atol=1e-9)
    assert not motion.is_running and motion.stop == ''


def test_without_a_measurement_the_last_command_is_held(moving):
    motion, before = moving
    motion.hold_here(None)
    after = drive(motion, 10, first=10, known=False)
    steps = np.abs(np.diff([before[-1], *after], axis=0))
    assert (steps <= PROFILE.velocity * PERIOD + 1e-9).all()
    assert abs(after[-1][0] - before[-1][0]) < 2 * PROFILE.velocity[0] * PERIOD
