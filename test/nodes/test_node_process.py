# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Nodes as processes: clean exits, bad input, strange requests."""

from __future__ import annotations

import signal
import time

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_means_hold_and_exit_0_within_2_s(graph, robot, wait, number):
    process = graph.process('arm_node', autostart=True)
    assert wait(lambda: robot.last() is not None)
    robot.send([robot.pose + 0.02 * i for i in range(20)])
    robot.live(0.2)
    process.process.send_signal(number)
    time.sleep(0.15)
    process.process.send_signal(number)  # launch repeats what the terminal has sent already
    assert process.wait_at_most(1.85) == 0
    output = ''.join(process.lines)
    assert 'deactivate done' in output and 'Traceback' not in output


def test_a_loaded_policy_leaves_within_2_s_too(graph, make_tiny_checkpoint):
    cameras = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
    checkpoint = make_tiny_checkpoint(platform={'robot': 'aloha_sim', 'cameras': cameras})
    process = graph.process('policy_node', autostart=True, checkpoint=checkpoint)
    process.says('activate done')
    process.process.send_signal(signal.SIGTERM)
    assert process.wait_at_most(2.0) == 0
    process.says('shutdown done')


def test_a_signal_before_the_node_is_there_ends_it_too(graph):
    process = graph.process('policy_node')
    process.minds_signals()
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_a_signal_before_the_start_ends_it_too(graph, robot, wait):
    process = graph.process('policy_node')
    assert wait(robot.create_client(ChangeState, 'policy_node/change_state').service_is_ready)
    process.process.send_signal(signal.SIGTERM)
    assert process.wait_at_most(2.0) == 0


@pytest.mark.parametrize(
    'module, parameters, expected',
    [
        ('arm_node', {'robot': 'r2d2'}, "configure failed: unknown robot 'r2d2'; known are"),
        ('arm_node', {'diagnostics_rate': 0.0}, 'parameter diagnostics_rate: '),
        ('arm_node', {'robot': 3}, 'parameter robot: '),
        ('guard_node', {'robot': 'r2d2'}, "unknown robot 'r2d2'"),
        ('guard_node', {'heartbeat_rate': 1.0}, 'parameter heartbeat_rate: '),
        ('guard_node', {'dead_man_timeout': 2.0}, 'parameter dead_man_timeout: '),
        ('guard_node', {'dead_man_button': -1}, 'parameter dead_man_button: '),
        ('guard_node', {'dead_man_topic': 'no topic'}, "parameter dead_man_topic: 'no topic': "),
        ('arm_node', {'temporal_ensemble': -2.0}, 'parameter temporal_ensemble: '),
        (
            'arm_node',
            {'temporal_ensemble': -0.5},
            'parameter temporal_ensemble: -0.5 is neither -1 (off) nor a weight from 0 on',
        ),
        ('policy_node', {}, 'configure failed: parameter checkpoint is empty'),
        ('policy_node', {'checkpoint': '/none'}, 'configure failed: /none: no such checkpoint'),
        ('policy_node', {'replan_fraction': 1.5}, 'parameter replan_fraction: '),
        (
            'policy_node',
            {'residency': 'int8'},
            "parameter residency: 'int8' is not one of bf16, packed",
        ),
        (
            'arm_node',
            {'robot': 'aloha2_interbotix'},
            'configure failed: adapter interbotix needs interbotix_xs_msgs/msg/JointGroupCommand',
        ),
        (
            'guard_node',
            {'robot': 'aloha2_interbotix'},
            'adapter interbotix needs interbotix_xs_msgs/msg/JointGroupCommand',
        ),
        ('bringup_node', {'nodes': 'arm_node,arm_node'}, 'parameter nodes: '),
        ('sim_robot_node', {'robot': 'r2d2'}, "unknown robot 'r2d2'"),
        (
            'sim_robot_node',
            {'robot': 'ros2_control_dual_jtc'},
            'the simulated robot takes forward_command or joint_state with gripper arm',
        ),
        ('sim_robot_node', {'seed': -1}, 'parameter seed: '),
    ],
)
def test_bad_input_is_an_error_line_and_exit_2(graph, module, parameters, expected):
    extra = {'autostart': True} if module in ('arm_node', 'policy_node') else {}
    process = graph.process(module, **parameters, **extra)
    assert process.wait() == 2
    errors = [line for line in process.lines if '[ERROR]' in line]
    assert any(expected in line for line in errors), ''.join(process.lines)
    assert 'Traceback' not in ''.join(process.lines)


def test_a_parameter_file_that_is_none(graph, tmp_path):
    path = tmp_path / 'params.yaml'
    path.write_text('arm_node: [')
    process = graph.process('arm_node', files=[path])
    assert process.wait() == 2
    errors = [line for line in process.lines if '[ERROR]' in line]
    assert any('params.yaml' in line for line in errors), ''.join(process.lines)
    assert 'Traceback' not in ''.join(process.lines)


def test_a_failed_configure_without_autostart_leaves_it_unconfigured(graph, robot, wait):
    process = graph.process('arm_node', robot='r2d2')
    client = robot.create_client(ChangeState, 'arm_node/change_state')
    assert wait(client.service_is_ready)

    def change(number):
        answer = client.call_async(ChangeState.Request(transition=Transition(id=number)))
        assert wait(answer.done)
        return answer.result().success

    assert not change(Transition.TRANSITION_CONFIGURE)
    process.says("configure failed: unknown robot 'r2d2'")
    # A transition that is not allowed here must not end the process; requests are taken in order.
    client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
    assert not change(Transition.TRANSITION_CONFIGURE)
    assert process.is_running
    process.process.send_signal(signal.SIGTERM)
    assert process.wait_at_most(2.0) == 0
