# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The times of the shipped profiles against the bounds of docs/safety.md."""

from __future__ import annotations

import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.guard_node import WATCH_RATE
from hbvla_ros.resources import share_path

REAL = sorted(
    path.stem for path in share_path('config', 'robots').glob('*.yaml') if path.stem != 'aloha_sim'
)
# s from the last valid input to the last command that moves an arm, and from a death to the hold.
LOSS, DEATH = 0.25, 0.5


def test_there_are_six_real_robots():
    assert len(REAL) == 6


@pytest.mark.parametrize('robot', REAL)
@pytest.mark.parametrize('key', ['joint_state_timeout', 'image_timeout', 'frozen_timeout'])
def test_a_loss_holds_within_the_bound(robot, key):
    profile = RobotProfile.load(robot)
    assert getattr(profile.safety, key) + 1.0 / profile.control_rate <= LOSS


@pytest.mark.parametrize('robot', [*REAL, 'aloha_sim'])
def test_a_death_is_noticed_within_the_bound(robot):
    assert RobotProfile.load(robot).safety.heartbeat_timeout + 1.0 / WATCH_RATE <= DEATH


def test_the_simulated_robot_keeps_the_bound_of_joint_states():
    profile = RobotProfile.load('aloha_sim')
    assert profile.safety.joint_state_timeout + 1.0 / profile.control_rate <= LOSS
