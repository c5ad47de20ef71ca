# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Cameras and joint states that stop, freeze, or are not what they should be."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticStatus

from hbvla_ros.evaluation.wire import last_motion

ERROR = int.from_bytes(DiagnosticStatus.ERROR, 'little')


def test_fault_camera_stops(drill, rehearse):
    rehearse(drill, 'camera stops')


def test_fault_camera_freezes(drill, rehearse):
    outcome = rehearse(drill, 'camera freezes')
    assert outcome.reasons[0].level == ERROR


def test_fault_malformed_images(drill, rehearse):
    outcome = rehearse(drill, 'malformed images')
    assert outcome.reasons[0].level == ERROR


def test_fault_joint_states_stop(drill, rehearse):
    outcome = rehearse(drill, 'joint states stop')
    assert outcome.reasons[0].level == ERROR


def test_fault_wrong_joint_names(drill, rehearse):
    rehearse(drill, 'wrong joint names')


def test_fault_clock_jumps_back(simulated_drill, rehearse):
    rehearse(simulated_drill, 'clock jumps back')


def test_fault_camera_stops_and_the_chunk_runs_out(simulated_drill, rehearse, ends_chunk):
    """As the policy node is shipped: what was made from good images is still executed."""
    rehearse(simulated_drill, ends_chunk('camera stops'))
    # Seen from the last picture that is late: the bound of the first test is no matter of course.
    wire = simulated_drill.recorder
    simulated_drill.set_in_motion()
    simulated_drill.rehearse(ends_chunk('camera stops'))
    went_on = last_motion(list(wire.commands[0]), wire.camera.valid, time.monotonic())
    assert went_on is not None and went_on - wire.camera.valid > 0.25
    simulated_drill.recover(ends_chunk('camera stops'))
