# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The controllers of the ros2_control profiles: for both distributions, and what is installed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import setuptools
import yaml

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.resources import share_path

ROOT = Path(__file__).resolve().parents[2]
SIDES = ('left', 'right')
CONTROLLERS = [(kind, d) for kind in ('jtc', 'forward') for d in ('humble', 'jazzy')]


@pytest.fixture(params=CONTROLLERS, ids='-'.join)
def controllers(request):
    kind, distribution = request.param
    path = share_path('config', 'controllers', f'ros2_control_dual_{kind}.{distribution}.yaml')
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    return kind, distribution, {key: value['ros__parameters'] for key, value in content.items()}


def test_controllers_are_those_of_the_profile(controllers):
    kind, distribution, content = controllers
    profile = RobotProfile.load(f'ros2_control_dual_{kind}')
    manager = content.pop('controller_manager')
    types = {key: value['type'] for key, value in manager.items() if isinstance(value, dict)}
    assert types.pop('joint_state_broadcaster') == 'joint_state_broadcaster/JointStateBroadcaster'
    assert set(types) == set(content)
    assert manager['update_rate'] == profile.joint_state_rate
    topics = []
    for arm in profile.arms:
        _, controller, topic = arm.command_topic.split('/')
        topics.append(controller)
        # Humble has no parallel gripper controller: the gripper is one joint more.
        own_gripper = arm.gripper_adapter != 'arm' and distribution != 'humble'
        names = arm.joints if own_gripper else arm.names
        assert content[controller]['joints'] == list(names)
        library, _, _ = types[controller].partition('/')
        assert (library, topic) == {
            'jtc': ('joint_trajectory_controller', 'joint_trajectory'),
            'forward': ('forward_command_controller', 'commands'),
        }[kind]
        if own_gripper:
            _, controller, topic = arm.gripper_command_topic.split('/')
            topics.append(controller)
            assert content[controller]['joint'] == arm.gripper_command_name
            assert topic == 'gripper_cmd'
            assert types[controller] == 'parallel_gripper_action_controller/GripperActionController'
    assert set(topics) == set(content)


def test_what_differs_between_humble_and_jazzy_is_written_out(controllers):
    kind, distribution, content = controllers
    manager = content.pop('controller_manager')
    assert manager.get('enforce_command_limits') == (True if distribution == 'jazzy' else None)
    if kind == 'forward':
        assert all(parameters['interface_name'] == 'position' for parameters in content.values())
        return
    mine, other = 'open_loop_control', 'interpolate_from_desired_state'
    if distribution == 'jazzy':
        mine, other = other, mine
    for side in SIDES:
        parameters = content[f'{side}_arm_controller']
        assert parameters['allow_nonzero_velocity_at_trajectory_end'] is False
        assert parameters[mine] is True and other not in parameters
        assert parameters['allow_partial_joints_goal'] is False
        assert parameters['command_interfaces'] == ['position']


def test_on_humble_the_gripper_of_the_trajectories_is_a_joint_of_the_arm(tmp_path):
    """The edit that the profile's head describes."""
    path = share_path('config', 'robots', 'ros2_control_dual_jtc.yaml')
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    for arm in content['arms']:
        arm['gripper']['adapter'] = 'arm'
        for key in ('command_topic', 'command_name', 'hysteresis'):
            del arm['gripper'][key]
    copy = tmp_path / 'mine.yaml'
    copy.write_text(yaml.safe_dump(content), encoding='utf-8')
    assert [arm.gripper_adapter for arm in RobotProfile.load(copy).arms] == ['arm', 'arm']


def test_profiles_and_controllers_are_installed(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **options: given.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path('setup.py')
    installed = {file for _, files in given['data_files'] for file in files}
    wanted = [*Path('config', 'robots').glob('*'), *Path('config', 'controllers').glob('*')]
    assert len(wanted) == 7 + len(CONTROLLERS)
    assert {str(path) for path in wanted} <= installed
