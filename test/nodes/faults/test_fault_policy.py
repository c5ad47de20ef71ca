# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A policy that dies, hangs, is late, or says what cannot be done."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.data import ActionChunk
from hbvla_ros.nodes.conversions import chunk_to_message


def test_fault_policy_process_killed(drill, rehearse):
    rehearse(drill, 'policy process killed')


def test_fault_policy_process_stands_still(drill, rehearse):
    rehearse(drill, 'policy process stands still')


def test_fault_policy_hangs(drill, rehearse):
    rehearse(drill, 'policy hangs')


def test_fault_inference_spike(drill, rehearse):
    rehearse(drill, '2 s inference spike')


@pytest.mark.parametrize('value', ['NaN', 'inf'])
def test_fault_action_not_finite(drill, rehearse, value):
    rehearse(drill, f'{value} action')


def test_fault_out_of_limit_action(drill, rehearse):
    rehearse(drill, 'out-of-limit action')


def test_fault_instruction_flood(drill, rehearse):
    rehearse(drill, 'instruction flood')


@pytest.mark.parametrize(
    'spoil, reason',
    [
        (lambda names, rows: (['strange', *names[1:]], rows), 'chunk has other joint names'),
        (lambda names, rows: (names, rows * np.nan), 'not finite'),
        (lambda names, rows: (names[::-1], rows), 'the order'),
    ],
    ids=['names', 'not finite', 'order'],
)
def test_fault_chunk_of_a_stranger(drill, spoil, reason):
    """What a program sends to arm_node that is not our policy_node: refused, and the arms go on."""
    drill.set_in_motion()
    wire, begun = drill.recorder, drill.now()
    names, rows = spoil(list(drill.profile.action_names), np.zeros((25, 14)))
    start = drill.node.get_clock().now().nanoseconds * 1e-9
    chunk = ActionChunk(rows, start, 0.04, start, '', 'stranger')
    publisher = drill.node.create_publisher(JointTrajectory, 'action_chunks', 5)
    drill.wait(lambda: publisher.get_subscription_count() >= 2, 'arm_node listens')
    publisher.publish(chunk_to_message(chunk, names))
    drill.wait(
        lambda: any(reason in r.values['last refusal'] for r in wire.of('arm_node', begun)),
        'the reason is on /diagnostics',
    )
    drill.node.destroy_publisher(publisher)
    drill.set_in_motion()
    assert wire.violations == []
