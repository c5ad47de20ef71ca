# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Arm node and guard that die or stand still, and somebody else who commands the arms."""

from __future__ import annotations


def test_fault_arm_process_killed(drill, rehearse):
    rehearse(drill, 'arm process killed')


def test_fault_arm_process_stands_still(drill, rehearse):
    rehearse(drill, 'arm process stands still')


def test_fault_guard_killed(drill, rehearse):
    rehearse(drill, 'guard killed')


def test_fault_two_writers(drill, rehearse):
    rehearse(drill, 'two writers')


def test_fault_two_writers_is_seen_by_the_guard_too(drill):
    """Whoever is the first to see it: both must say so, for one of them may be dead."""
    drill.set_in_motion()
    begun = drill.now()
    drill.cast.intrude()
    for node in ('guard_node', 'arm_node'):
        drill.wait(
            lambda node=node: any(
                'another writer, /leader_arm' in one.message or '/leader_arm' in one.values['stop']
                for one in drill.recorder.of(node, begun)
            ),
            f'{node} names the second writer',
        )
    drill.cast.dismiss('intruder')
    drill.set_in_motion()
