# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a report says about ticks that are written down by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.evaluation.replay_arms import Tick
from hbvla_ros.evaluation.replay_policy import Instant
from hbvla_ros.evaluation.replay_summary import command_report, holds, interventions, kind_of
from hbvla_ros.recordings.pose_tracks import PoseTracks, Track

PROFILE = RobotProfile.load('aloha_sim')
STAGE = SafetyStage.of(PROFILE)
WAIST, ELBOW = 0, 2


def ticks(commands, reasons=None, kinds=None, measured=None):
    """A tick every control period."""
    reasons, kinds = reasons or [''] * len(commands), kinds or [()] * len(commands)
    return [
        Tick(Instant(0.04 * i, 100 + 0.04 * i, 100 + 0.04 * i, 100 + 0.04 * i), command,
             PROFILE.start_pose if measured is None else measured, reason, kind)
        for i, (command, reason, kind) in enumerate(zip(commands, reasons, kinds, strict=True))
    ]  # fmt: skip


def poses(column, values):
    found = np.tile(PROFILE.start_pose, (len(values), 1))
    found[:, column] = values
    return list(found)


def test_the_worst_step_is_the_largest_share_of_its_limit():
    report = command_report(ticks(poses(WAIST, [0.0, 0.01, 0.11, 0.12])), STAGE, PROFILE)
    assert report['worst_step'] == {
        'joint': 'left waist', 'at_s': 0.08, 'step': 0.1,
        'limit': pytest.approx(0.125664), 'share': pytest.approx(0.795775),
    }  # fmt: skip
    assert report['steps_above_limit'] == report['outside_limits'] == 0
    assert (report['ticks'], report['sent'], report['running']) == (4, 4, 4)


def test_what_breaks_a_limit_is_counted():
    assert (
        command_report(ticks(poses(WAIST, [0.0, 0.2, 0.3])), STAGE, PROFILE)['steps_above_limit']
        == 1
    )
    upper = PROFILE.upper[ELBOW]
    outside = poses(ELBOW, [upper - 0.05, upper + 0.02, upper + 0.04, upper + 0.03])
    assert command_report(ticks(outside), STAGE, PROFILE)['outside_limits'] == 2
    # An arm that was found outside is led back.
    measured = PROFILE.start_pose.copy()
    measured[ELBOW] = upper + 0.1
    back = poses(ELBOW, [upper + 0.1, upper + 0.05, upper])
    assert command_report(ticks(back, measured=measured), STAGE, PROFILE)['outside_limits'] == 0


def test_ticks_without_a_command_are_no_steps():
    none = ticks([None, None], ['no joint states yet', 'no joint states yet'])
    report = command_report(none, STAGE, PROFILE)
    assert report['sent'] == 0 and report['worst_step'] is None and report['holding'] == 2


def test_holds_are_told_apart_by_their_reason_and_not_by_its_numbers():
    reasons = ['', 'x is 0.261 s old', 'x is 0.301 s old', 'y is 0.301 s old', '', 'y is 1 s old']
    assert holds(ticks(poses(WAIST, [0.0] * 6), reasons)) == [
        {'start_s': 0.04, 'end_s': 0.08, 'reason': 'x is 0.261 s old'},
        {'start_s': 0.12, 'end_s': 0.12, 'reason': 'y is 0.301 s old'},
        {'start_s': 0.2, 'end_s': 0.2, 'reason': 'y is 1 s old'},
    ]
    assert kind_of('cam_2 of joint0: rgb8 for -0.5 s, 3 rows') == (
        'cam_2 of joint0: rgb8 for # s, # rows'
    )


def test_interventions_by_kind():
    kinds = [('position',), (), ('position', 'not finite')]
    assert interventions(ticks(poses(WAIST, [0.0] * 3), kinds=kinds)) == {
        'not finite': 1, 'position': 2,
    }  # fmt: skip


def test_a_track_knows_nothing_before_after_and_in_long_gaps():
    gripper = np.array([False, True])
    track = Track((0, 1))
    track.add([1.0, 1.2, 2.0], np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]))
    known = PoseTracks([track], gripper).at([0.9, 1.0, 1.1, 1.2, 1.6, 2.0, 2.1])
    np.testing.assert_allclose(known[:, 0], [np.nan, 0.0, 0.5, 1.0, np.nan, 2.0, np.nan])
    np.testing.assert_allclose(known[:, 1], [np.nan, 0.0, 0.0, 1.0, np.nan, 0.0, np.nan])
    # What comes later says what is due from then on.
    track.add([1.1], np.array([[5.0, 0.5]]))
    assert track.times == [1.0, 1.1]
    np.testing.assert_allclose(PoseTracks([track], gripper).at([1.05])[0], [2.5, 0.0])
