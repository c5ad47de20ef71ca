# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Robot profiles: the shipped ones load, a wrong one says where."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import yaml

from hbvla_ros.control.profile import GripperMap, RobotProfile, StopService
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
STOP = {'name': 'stop', 'type': 'std_srvs/Empty'}
FAULTS = [
    (('format_version',), 3, 'format_version: 3 is not supported; this is 2'),
    (('format_version',), 1, 'format_version: 1 is not supported; this is 2, add arms[].accel'),
    (('format_version',), None, 'format_version: missing'),
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
    ((*ARM, 'acceleration_limits'), None, 'arms[0].acceleration_limits: missing'),
    ((*ARM, 'acceleration_limits', 'unit'), 'rad/s', "acceleration_limits.unit: 'rad/s' is not"),
    ((*ARM, 'acceleration_limits', 'joints', 3), -1, 'acceleration limit -1.0 must be above 0'),
    ((*ARM, 'jerk_limits', 'joints', 0), 0, "joint 'left_waist': jerk limit 0.0 must be above 0"),
    ((*ARM, 'jerk_limits', 'joints'), [1.0] * 7, 'jerk_limits.joints: expected 6 numbers, found 7'),
    ((*ARM, 'jerk_limits', 'unit'), 'deg/s^2', "arms[0].jerk_limits.unit: 'deg/s^2' is not one"),
    ((*ARM, 'state_latency'), None, 'arms[0].state_latency: missing'),
    ((*ARM, 'state_latency'), 1.5, 'arms[0].state_latency: 1.5 is outside 0.0 to 1.0'),
    ((*ARM, 'group'), 'arm', "arms[0].group: has no meaning for adapter 'forward_command'"),
    ((*ARM, 'adapter'), 'interbotix', 'arms[0].group: missing'),
    ((*ARM, 'command_topic'), 'left/joint_states', "'left/joint_states' has both states and"),
    ((*ARM, 'command_topic'), 'right/joint_states', "'right/joint_states' has both states and"),
    ((*ARM, 'gripper', 'adapter'), None, 'arms[0].gripper.adapter: missing'),
    ((*ARM, 'gripper', 'adapter'), 'hand', "gripper.adapter: 'hand' is not one of arm, parallel"),
    ((*ARM, 'gripper', 'adapter'), 'interbotix_single', 'gripper.command_topic: missing'),
    ((*ARM, 'gripper', 'hysteresis'), 0.1, "gripper.hysteresis: has no meaning for adapter 'arm'"),
    ((*ARM, 'gripper', 'command_topic'), 'x', 'gripper.command_topic: has no meaning for adapter'),
    (('cameras', 0, 'encoding'), None, 'cameras[0].encoding: missing'),
    (
        ('cameras', 0, 'encoding'),
        'yuv',
        "cameras[0].encoding: 'yuv' is not one of auto, rgb8, bgr8",
    ),
    (('safety', 'clamp_stop'), 0, 'safety.clamp_stop: 0 is outside'),
    (('safety', 'frozen_timeout'), 0.0, 'safety.frozen_timeout: 0.0 is outside'),
    (('safety', 'horizon'), 2.0, 'safety.horizon: 2.0 is above 1.0 s'),
    (('safety', 'start_mismatch'), None, 'safety.start_mismatch: missing'),
    (('stop_services',), {'name': 'stop'}, 'stop_services: expected a list'),
    (('stop_services',), [{'name': 'stop'}], 'stop_services[0].type: missing'),
    (('stop_services',), [{'name': 'stop', 'type': 'Empty'}], "stop_services[0].type: 'Empty' is"),
    (('stop_services',), [STOP, STOP], "stop_services[1].name: duplicate 'stop'"),
]


@pytest.mark.parametrize('keys, value, expected', FAULTS, ids=[f[2][:40] for f in FAULTS])
def test_fault_names_file_and_key(tmp_path, content, keys, value, expected):
    put(content, keys, value)
    with pytest.raises(HbvlaError) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert expected in message and 'robot.yaml' in message and '\n' not in message


OWN_GRIPPER = {
    'adapter': 'parallel_gripper_action', 'command_topic': 'left/gripper/gripper_cmd',
    'command_name': 'left_finger', 'hysteresis': 0.05,
}  # fmt: skip
GRIPPER_FAULTS = [
    ('hysteresis', None, 'gripper.hysteresis: missing'),
    ('hysteresis', 0.6, 'gripper.hysteresis: 0.6 is outside 0.0 to 0.5'),
    ('command_name', '', 'gripper.command_name: expected text'),
    ('command_topic', 'left/commands', "gripper.command_topic: duplicate 'left/commands' of the"),
    ('command_topic', 'right/commands', "command_topic: duplicate 'right/commands'; two arms may"),
    ('command_topic', 'left/joint_states', "'left/joint_states' has both states and commands"),
]


@pytest.mark.parametrize('key, value, expected', GRIPPER_FAULTS, ids=[f[2] for f in GRIPPER_FAULTS])
def test_fault_of_a_gripper_with_a_topic_of_its_own(tmp_path, content, key, value, expected):
    content['arms'][0]['gripper'].update(OWN_GRIPPER)
    put(content, ('arms', 0, 'gripper', key), value)
    with pytest.raises(HbvlaError) as caught:
        load(tmp_path, content)
    assert expected in str(caught.value) and '\n' not in str(caught.value)


def test_a_gripper_with_a_topic_of_its_own(tmp_path, content):
    content['arms'][0]['gripper'].update(OWN_GRIPPER)
    left, right = load(tmp_path, content).arms
    assert (left.gripper_adapter, left.gripper_hysteresis) == ('parallel_gripper_action', 0.05)
    assert left.gripper_command_topic == 'left/gripper/gripper_cmd'
    assert left.gripper_command_name == 'left_finger'
    assert (right.gripper_adapter, right.gripper_command_topic) == ('arm', '')
    assert (right.gripper_command_name, right.gripper_hysteresis) == ('', 0.0)


def test_limits_of_acceleration_and_jerk_leave_grippers_free(tmp_path, content):
    content['arms'][0]['acceleration_limits'] = {'unit': 'deg/s^2', 'joints': [180] * 6}
    content['arms'][0]['jerk_limits'] = {'unit': 'deg/s^3', 'joints': [360] * 6}
    profile = load(tmp_path, content)
    np.testing.assert_allclose(profile.acceleration[:7], [np.pi] * 6 + [np.inf])
    np.testing.assert_allclose(profile.jerk[:7], [2 * np.pi] * 6 + [np.inf])
    assert profile.acceleration.shape == profile.jerk.shape == (14,)


def test_arms_with_the_same_joint_names_are_told_apart(tmp_path, content):
    names = [f'joint{i}' for i in range(6)]
    for arm in content['arms']:
        arm['joints'] = names
        arm['gripper']['joint'] = 'joint6'
    profile = load(tmp_path, content)
    assert profile.action_names[5:8] == ('left/joint5', 'left/joint6', 'right/joint0')
    assert profile.arms[1].names[0] == 'joint0'
    content['arms'][1]['state_topic'] = content['arms'][0]['state_topic']
    with pytest.raises(HbvlaError, match=r"arms\[1\]\.joints: duplicate joint 'joint0', also in"):
        load(tmp_path, content)


def test_group_and_stop_services(tmp_path, content):
    content['arms'][0].update(adapter='interbotix', group='arm')
    content['stop_services'] = [STOP]
    profile = load(tmp_path, content)
    assert (profile.arms[0].group, profile.arms[1].group) == ('arm', '')
    assert profile.stop_services == (StopService('stop', 'std_srvs/Empty'),)
    content['stop_services'] = []
    assert load(tmp_path, content).stop_services == ()


def test_nothing_in_the_simulated_robot_slows_what_velocity_allows():
    """The policies of this robot know no other limits: from full speed to full speed back."""
    profile = RobotProfile.load('aloha_sim')
    joints, period = ~profile.is_gripper, 1.0 / profile.control_rate
    change = 2.0 * profile.velocity[joints] / period
    assert (profile.acceleration[joints] > change).all()
    assert (profile.jerk[joints] > 2.0 * change / period).all()


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
