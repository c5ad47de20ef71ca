# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Robot profiles: the shipped ones load, a wrong one says where."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import yaml

from hbvla_ros.control.profile import GripperMap, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.resources import share_path


@pytest.fixture
def content():
    return yaml.safe_load(share_path('config', 'robots', 'aloha_sim.yaml').read_text())


def load(tmp_path, content):
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(content))
    return RobotProfile.load(path)


def test_aloha_sim_has_the_action_order_of_aloha():
    profile = RobotProfile.load('aloha_sim')
    assert len(profile.action_names) == 14
    assert np.flatnonzero(profile.is_gripper).tolist() == [6, 13]
    assert profile.action_names[0] == 'left_waist' and profile.action_names[13] == 'right_gripper'
    assert [c.name for c in profile.cameras] == ['cam_high', 'cam_left_wrist', 'cam_right_wrist']
    np.testing.assert_allclose(profile.start_pose[:6], [0, -0.96, 1.16, 0, -0.3, 0])
    assert (profile.lower < profile.upper).all() and (profile.velocity > 0).all()
    assert [len(part) for part in profile.split(profile.start_pose)] == [7, 7]


def test_gripper_map_inverts_and_may_run_downwards():
    angle = GripperMap(closed=1.5, open=-0.5, unit='rad')
    assert angle.to_ratio(1.5) == 0.0 and angle.to_ratio(-0.5) == 1.0
    np.testing.assert_allclose(angle.from_ratio(angle.to_ratio([0.3, 1.1])), [0.3, 1.1])


def test_action_grippers_use_the_action_map_only(tmp_path, content):
    content['arms'][1]['gripper']['action'] = {'closed': 2.0, 'open': 4.0, 'unit': 'raw'}
    profile = load(tmp_path, content)
    actions = np.zeros((3, 14))
    actions[:, 13] = [2.0, 3.0, 4.0]
    poses = profile.action_to_pose(actions)
    np.testing.assert_allclose(poses[:, 13], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(poses[:, :13], 0.0)
    np.testing.assert_allclose(profile.pose_to_action(poses), actions)


def test_degrees_become_radians(tmp_path, content):
    arm = content['arms'][0]
    arm['position_limits'] = {'unit': 'deg', 'lower': [-180] * 6, 'upper': [180] * 6}
    arm['velocity_limits'] = {'unit': 'deg/s', 'joints': [90] * 6}
    profile = load(tmp_path, content)
    np.testing.assert_allclose(profile.upper[:6], np.pi)
    np.testing.assert_allclose(profile.velocity[:6], np.pi / 2)


def put(content, keys, value):
    for key in keys[:-1]:
        content = content[key]
    if value is None:
        del content[keys[-1]]
    else:
        content[keys[-1]] = value


ARM = ('arms', 0)
FAULTS = [
    (('format_version',), 2, 'format_version: 2 is not supported'),
    (('robot',), None, 'robot: missing'),
    (('robot',), '', 'robot: expected text'),
    (('colour',), 'red', 'colour: unknown key'),
    (('rates', 'control'), 0, 'rates.control: 0 is outside'),
    (('rates', 'control'), '25', 'rates.control: expected a number'),
    (('rates', 'control'), float('nan'), 'rates.control: nan is outside'),
    (('rates', 'camera'), 3, 'rates.camera: unknown key'),
    (('arms',), [], 'arms: expected a list with entries'),
    (('safety', 'lag_bound'), None, 'safety.lag_bound: missing'),
    (('safety', 'lag_bound'), -1.0, 'safety.lag_bound: -1.0 is outside'),
    (('cameras', 1, 'name'), 'cam_high', "cameras[1].name: duplicate 'cam_high'"),
    (('cameras', 0, 'type'), 'png', "cameras[0].type: 'png' is not one of compressed, raw"),
    ((*ARM, 'adapter'), 'xs', "arms[0].adapter: 'xs' is not one of forward_command"),
    ((*ARM, 'joints', 1), 'left_waist', "arms[0].joints[1]: duplicate 'left_waist'"),
    ((*ARM, 'joints', 1), 'right_waist', "arms[1].joints: duplicate joint 'right_waist'"),
    ((*ARM, 'gripper', 'joint'), 'left_waist', 'arms[0].gripper.joint: duplicate joint'),
    ((*ARM, 'gripper', 'action'), None, 'arms[0].gripper.action: missing'),
    ((*ARM, 'gripper', 'action', 'unit'), 'inch', "arms[0].gripper.action.unit: 'inch'"),
    ((*ARM, 'gripper', 'action', 'open'), 0.0, 'arms[0].gripper.action.open: equals closed'),
    ((*ARM, 'position_limits', 'unit'), 'turn', "arms[0].position_limits.unit: 'turn'"),
    ((*ARM, 'position_limits', 'lower', 2), 3.0, "joint 'left_elbow': lower limit 3.0"),
    ((*ARM, 'position_limits', 'lower'), [0.0], 'position_limits.lower: expected 6 numbers'),
    ((*ARM, 'velocity_limits', 'unit'), 'rad', "arms[0].velocity_limits.unit: 'rad'"),
    ((*ARM, 'velocity_limits', 'joints', 0), 0, "joint 'left_waist': velocity limit 0.0"),
    ((*ARM, 'start_pose', 1), 2.0, "start_pose: joint 'left_shoulder': 2.0 rad is outside"),
    (('arms', 1, 'command_topic'), 'left/commands', 'arms[1].command_topic: duplicate'),
]


@pytest.mark.parametrize('keys, value, expected', FAULTS, ids=[f[2][:40] for f in FAULTS])
def test_fault_names_file_and_key(tmp_path, content, keys, value, expected):
    put(content, keys, value)
    with pytest.raises(HbvlaError) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert expected in message and 'robot.yaml' in message and '\n' not in message


def test_unchanged_copy_loads(tmp_path, content):
    assert load(tmp_path, copy.deepcopy(content)).robot == 'aloha_sim'


def test_unknown_robot_lists_the_known():
    with pytest.raises(HbvlaError, match=r"unknown robot 'aloah'; known are .*aloha_sim"):
        RobotProfile.load('aloah')


@pytest.mark.parametrize(
    'text, expected',
    [
        ('robot: a\nrobot: b\n', "'robot' is written twice"),
        ('- 1\n', 'expected a mapping'),
        ('a: [1\n', 'not valid YAML'),
        ('', 'expected a mapping'),
    ],
)
def test_files_that_are_not_a_profile(tmp_path, text, expected):
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    with pytest.raises(HbvlaError, match=expected) as caught:
        RobotProfile.load(path)
    assert '\n' not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(HbvlaError, match=r'none\.yaml: cannot be read'):
        RobotProfile.load(tmp_path / 'none.yaml')
