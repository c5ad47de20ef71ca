# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Shipped robot profiles: what holds of all of them, and between those of related robots."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState
from hbvla_ros.resources import share_path

SIDES = ('left', 'right')
# The simulated robot has no vendor.
ROBOTS = sorted(
    path.stem for path in share_path('config', 'robots').glob('*.yaml') if path.stem != 'aloha_sim'
)


@pytest.fixture(scope='module', params=ROBOTS)
def name(request):
    return request.param


@pytest.fixture(scope='module')
def profile(name):
    return RobotProfile.load(name)


def test_times_keep_the_bounds_of_the_safety_page(profile):
    """0.25 s from the last joint state to the hold, 0.5 s for a process that died."""
    safety = profile.safety
    period, watchdog = 1.0 / profile.control_rate, 0.05
    assert safety.joint_state_timeout + watchdog + period < 0.25
    assert safety.heartbeat_timeout + watchdog + period < 0.5
    assert safety.horizon <= 0.5 and safety.frozen_timeout <= 0.2 and safety.clamp_stop <= 1.0
    assert safety.ramp_velocity < 0.5 * profile.velocity[~profile.is_gripper].min()
    assert safety.start_mismatch <= 0.15 and safety.lag_stop < 0.5
    # Cameras that are not triggered together: two frames may be up to a period apart.
    assert all(1.0 / camera.rate < safety.image_skew for camera in profile.cameras)


def test_arms_come_to_rest_soon_and_the_safety_stage_takes_the_limits(profile):
    joints = ~profile.is_gripper
    velocity, acceleration, jerk = (
        vector[joints] for vector in (profile.velocity, profile.acceleration, profile.jerk)
    )
    assert (velocity / acceleration + acceleration / jerk < 0.4).all()
    stage = SafetyStage.of(profile)
    start, state, now = profile.start_pose, SafetyState(), 10.0
    for _ in range(3):
        command, state = stage.command(state, None, start, now)
        now += stage.period
    # Held where it is, but for joints that stand inside the margin of a limit.
    np.testing.assert_allclose(command, start, atol=profile.safety.position_margin + 1e-9)


def test_the_piper_arms_are_stopped_by_their_own_service():
    services = [(s.name, s.type) for s in RobotProfile.load('agilex_piper_dual').stop_services]
    assert services == [(f'/{side}/emergency_stop', 'std_srvs/Empty') for side in SIDES]


def test_the_two_generations_of_aloha_do_not_share_a_gripper():
    first, second = RobotProfile.load('mobile_aloha'), RobotProfile.load('aloha2_interbotix')
    for old, new in zip(first.arms, second.arms, strict=True):
        assert old.observed != new.observed and old.command != new.command
    assert first.robot != second.robot


def test_both_ros2_control_profiles_drive_the_same_robot():
    jtc, forward = (RobotProfile.load(f'ros2_control_dual_{k}') for k in ('jtc', 'forward'))
    assert jtc.robot == forward.robot == 'ros2_control_dual'
    changed = {
        'adapter': '', 'command_topic': '', 'gripper_adapter': '', 'gripper_command_topic': '',
        'gripper_command_name': '', 'gripper_hysteresis': 0.0,
    }  # fmt: skip
    for one, other in zip(jtc.arms, forward.arms, strict=True):
        assert dataclasses.replace(one, **changed) == dataclasses.replace(other, **changed)
    assert (jtc.cameras, jtc.safety) == (forward.cameras, forward.safety)


def test_a_profile_says_where_its_numbers_are_from_and_that_nobody_tried_it(name):
    text = share_path('config', 'robots', f'{name}.yaml').read_text(encoding='utf-8')
    head = text.partition('format_version')[0]
    assert 'NOT TRIED ON A ROBOT' in head and '[chosen]' in head and 'commit' in head
    assert 'CHECK' in text.partition('format_version')[2]
