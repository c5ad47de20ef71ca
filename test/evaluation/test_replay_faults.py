# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Faults injected into a replayed bag, each with the outcome that docs/replay.md states."""

from __future__ import annotations

import dataclasses

import yaml

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture
from hbvla_ros.resources import share_path

PROFILE = RobotProfile.load('aloha_sim')
# Reason of a hold without the joint states of the left arm.
LOST = 'no joint states for # s from left/joint_states'
START = 1_700_000_000.0
# The arms hold so long, s, after the last message at the latest: time-out and a control period.
SOON = PROFILE.safety.joint_state_timeout + 0.05


def test_dropped_camera(bag, replay, held):
    result = replay(bag, 'drop-camera:cam_high@1.0')
    assert held(result, 0.2, 1.0) == {''}
    assert held(result, 1.5, 2.0) == {'image from cam_high is # s old'}
    late = [one for one in result.replayed.inferences if one.started.elapsed > 1.0]
    assert all(one.stamp - START < 1.0 for one in late)


def test_dropped_camera_with_hold_on_loss(bag, replay):
    result = replay(bag, 'drop-camera:cam_high@1.0', hold_on_loss=True)
    ticks = [tick for tick in result.replayed.ticks if tick.holding and tick.instant.elapsed > 0.3]
    # The last image is from 0.96 s.
    assert ticks[0].instant.elapsed <= 0.96 + PROFILE.safety.image_timeout + 2 / 25
    assert ticks[0].holding.startswith('image from cam_high is ')


def test_dropped_camera_that_comes_back(bag, replay, held):
    result = replay(bag, 'drop-camera:cam_high@0.6-1.2')
    assert '' not in held(result, 1.1, 1.2) and held(result, 1.45, 1.9) == {''}


def test_frozen_camera(bag, tmp_path, replay, held):
    content = yaml.safe_load(share_path('config', 'robots').joinpath('aloha_sim.yaml').read_text())
    content['safety']['frozen_timeout'] = 3600.0
    (tmp_path / 'lenient.yaml').write_text(yaml.safe_dump(content))
    lenient = RobotProfile.load(tmp_path / 'lenient.yaml')
    result = replay(bag, 'freeze-camera:cam_high@0.8')
    assert held(result, 1.7, 2.0) == {
        'cam_high is frozen: the same image for # s while the arms moved'
    }
    assert result.report['streams']['cam_high']['frozen'] > 0
    assert held(replay(bag, 'freeze-camera:cam_high@0.8', profile=lenient), 0.2, 1.9) == {''}


def test_wrong_encoding(bag, replay, held):
    result = replay(bag, 'wrong-encoding:cam_left_wrist@1.0')
    failures = [one for one in result.replayed.inferences if one.outcome.startswith('failed: ')]
    assert failures and all('camera cam_left_wrist: ' in one.outcome for one in failures)
    assert not any(one.observation for one in failures)
    (reason,) = held(result, 1.5, 2.0)
    assert 'cam_left_wrist' in reason


def test_wrong_encoding_of_raw_images(tmp_path, replay):
    profile = dataclasses.replace(
        PROFILE, cameras=tuple(dataclasses.replace(one, type='raw') for one in PROFILE.cameras)
    )
    write_fixture(tmp_path / 'raw', profile, FixtureOptions(seconds=0.5))
    outcomes = replay(tmp_path / 'raw', 'wrong-encoding').report['inferences']['outcomes']
    (reason,) = outcomes
    assert "image encoding '32FC1' is not one of rgb8" in reason
    assert set(replay(tmp_path / 'raw').report['inferences']['outcomes']) == {'accepted'}


def test_dropped_joints(bag, replay, held):
    result = replay(bag, 'drop-joints:left@1.0')
    holding = [tick for tick in result.replayed.ticks if tick.holding and tick.instant.elapsed > 1]
    assert holding[0].instant.elapsed <= 1.0 + SOON
    assert held(result, 1.0 + SOON, 9.0) == {LOST}


def test_reordered_joints_change_nothing(bag, plain, replay):
    assert replay(bag, 'reorder-joints').report['digests'] == plain.report['digests']


def test_renamed_joint(bag, replay, held):
    result = replay(bag, 'rename-joint:left_elbow@1.0')
    assert held(result, 1.0 + SOON, 9.0) == {LOST}
    assert result.report['streams']['left']['undecodable'] == 50


def test_joint_that_is_no_number(bag, replay, held):
    result = replay(bag, 'nan-joint:left_elbow@0.8-1.3')
    assert held(result, 0.8 + SOON, 1.3) == {LOST}
    assert held(result, 1.5, 1.9) == {''}


def test_clock_that_is_set_back(bag, replay, held):
    result = replay(bag, 'clock-step:-0.1@1.0')
    assert result.report['clock_jumps'] == 1
    # What was executed was due by the old clock; the next chunk goes by the new one.
    assert held(result, 1.02, 1.06) == {'inference under way'}
    assert held(result, 1.1, 1.9) == {''}
    # Images count again when their stamps are newer than those before.
    assert result.report['streams']['cam_high']['out of order'] == 2


def test_clock_that_is_set_forward(bag, replay, held):
    result = replay(bag, 'clock-step:0.5@1.0')
    assert '' not in held(result, 1.02, 1.07) and held(result, 1.35, 1.9) == {''}


def test_duplicates_change_nothing(bag, plain, replay):
    twice, once = replay(bag, 'duplicate').report, plain.report
    assert twice['digests'] == once['digests']
    assert twice['streams']['cam_high']['out of order'] == 50
    assert twice['bag']['messages'] > 1.5 * once['bag']['messages']


def test_stamps_of_zero(bag, replay, held):
    result = replay(bag, 'zero-stamps:cam_high@1.0')
    assert held(result, 1.5, 2.0) == {
        'image from cam_high has no stamp: the driver must fill in header.stamp'
    }
    result = replay(bag, 'zero-stamps:left@1.0')
    assert held(result, 1.5, 2.0) == {
        'left/joint_states has no stamps: the driver must fill in header.stamp'
    }


def test_images_out_of_order(bag, replay, held):
    """The later of each two is used, the earlier one after it never."""
    result = replay(bag, 'out-of-order:cam_high')
    stamps = [one.stamps['cam_high'] for one in result.replayed.inferences]
    assert stamps == sorted(stamps)
    assert result.report['streams']['cam_high']['out of order'] == 25
    assert held(result, 0.3, 1.9) == {''}


def test_joint_states_out_of_order(bag, replay, held):
    result = replay(bag, 'out-of-order:left')
    assert result.report['streams']['left']['out of order'] >= 49
    assert held(result, 0.3, 1.9) == {''}
