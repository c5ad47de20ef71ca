# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Shipped robot profiles against what their vendors publish, written down here a second time.

The sources are named at the head of each profile. What a vendor does not publish is not here; the
profile says ``[chosen]`` there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hbvla_ros.control.profile import GripperMap, RobotProfile
from hbvla_ros.resources import share_path

PI = np.pi
DEGREES = np.pi / 180.0
SIDES = ('left', 'right')
TROSSEN_JOINTS = tuple(f'follower_{{side}}_joint_{i}' for i in range(6))


@dataclass(frozen=True)
class Facts:
    """What is published of one robot; ``{side}`` stands for left and right.

    Attributes:
        state, command: topics of the joints.
        adapter: kind of command message.
        joints: names in action order.
        gripper: name in the states.
        gripper_adapter, gripper_command: how it is commanded: kind, topic and name.
        observed, action, commanded: closed, open and unit, for both sides or one for each.
        lower, upper, velocity: the vendor's limits in rad and rad/s, None where there are none.
        acceleration: the vendor's, rad/s^2.
        start: pose of the joints in rad, None where there is none.
        rates: control and joint states in Hz, None where the vendor states none.
        cameras: name in the checkpoint to the raw topic.
        camera_rate: Hz, None where the vendor states none.
    """

    state: str
    command: str
    adapter: str
    joints: tuple[str, ...]
    gripper: str
    observed: tuple
    action: tuple
    commanded: tuple
    cameras: dict[str, str]
    rates: tuple[float | None, float | None]
    gripper_adapter: str = 'arm'
    gripper_command: tuple[str, str] = ('', '')
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    velocity: tuple[float, ...] | None = None
    acceleration: float = np.inf
    start: tuple[float, ...] | None = None
    camera_rate: float | None = None


VIPERX = {
    'joints': ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate'),
    'adapter': 'interbotix',
    'gripper': 'left_finger',
    'gripper_adapter': 'interbotix_single',
    # Recorded actions hold the leader's angle as a ratio, whatever its two ends are in rad.
    'action': (0.0, 1.0, 'ratio'),
    'lower': (-PI, -106 * DEGREES, -101 * DEGREES, -PI, -107 * DEGREES, -PI),
    'upper': (PI, 72 * DEGREES, 92 * DEGREES, PI, 128 * DEGREES, PI),
    'velocity': (PI,) * 6,
    'start': (0.0, -0.96, 1.16, 0.0, -0.3, 0.0),
    'camera_rate': 60.0,
}
TROSSEN = {
    'state': '/joint_states',
    'joints': TROSSEN_JOINTS,
    'gripper': 'follower_{side}_left_carriage_joint',
    'observed': (0.0, 0.044, 'm'),
    'action': (0.0, 1.0, 'ratio'),
    'commanded': (0.0, 0.044, 'm'),
    'lower': (-175 * DEGREES, 0.0, 0.0, -PI / 2, -PI / 2, -PI),
    'upper': (175 * DEGREES, PI, 0.75 * PI, PI / 2, PI / 2, PI),
    'velocity': (3.375, 3.375, 3.375, 7.0, 7.0, 7.0),
    'acceleration': 3.141596,
    'start': (0.0, 1.0472, 0.5236, 0.6283, 0.0, 0.0),
    'rates': (None, 100.0),
    'cameras': {
        name: f'/{name}/camera/color/image_rect_raw'
        for name in ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')
    },
}
FACTS = {
    'cobot_magic': Facts(
        state='/puppet/joint_{side}',
        command='/master/joint_{side}',
        adapter='joint_state',
        joints=tuple(f'joint{i}' for i in range(6)),
        gripper='joint6',
        # Different scales, and a different one for each side; commands are the policy's numbers.
        observed=((0.0, 4.7908, 'raw'), (0.0, 4.7888, 'raw')),
        action=((-0.34, 11.8997, 'raw'), (-0.34, 13.9231, 'raw')),
        commanded=((-0.34, 11.8997, 'raw'), (-0.34, 13.9231, 'raw')),
        cameras={
            'cam_high': '/camera_f/color/image_raw',
            'cam_left_wrist': '/camera_l/color/image_raw',
            'cam_right_wrist': '/camera_r/color/image_raw',
        },
        rates=(30.0, None),
        camera_rate=30.0,
    ),
    'agilex_piper_dual': Facts(
        state='/{side}/feedback/joint_states',
        command='/{side}/control/joint_states',
        adapter='joint_state',
        joints=tuple(f'joint{i}' for i in range(1, 7)),
        gripper='gripper',
        observed=(0.0, 0.1, 'm'),
        action=(0.0, 1.0, 'ratio'),
        commanded=(0.0, 0.1, 'm'),
        lower=(-2.6179938, 0.0, -2.9670597, -1.7453292, -1.2217304, -2.0943951),
        upper=(2.6179938, 3.1415926, 0.0, 1.7453292, 1.2217304, 2.0943951),
        velocity=(5.0,) * 6,
        acceleration=5.0,
        cameras={
            'cam_high': '/camera_f/color/image_raw',
            'cam_left_wrist': '/camera_l/color/image_raw',
            'cam_right_wrist': '/camera_r/color/image_raw',
        },
        rates=(None, 200.0),
    ),
    'aloha2_interbotix': Facts(
        **VIPERX,
        state='/follower_{side}/joint_states',
        command='/follower_{side}/commands/joint_group',
        gripper_command=('/follower_{side}/commands/joint_single', 'gripper'),
        observed=(0.0440, 0.0579, 'm'),
        commanded=(0.6197, 1.6214, 'rad'),
        cameras={
            name: f'/{name}/camera/color/image_rect_raw'
            for name in ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')
        },
        rates=(50.0, 100.0),
    ),
    'mobile_aloha': Facts(
        **VIPERX,
        state='/puppet_{side}/joint_states',
        command='/puppet_{side}/commands/joint_group',
        gripper_command=('/puppet_{side}/commands/joint_single', 'gripper'),
        observed=(0.01844, 0.05800, 'm'),
        commanded=(-0.6213, 1.4910, 'rad'),
        cameras={
            name: f'/usb_{name}/image_raw'
            for name in ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
        },
        rates=(50.0, None),
    ),
    'ros2_control_dual_jtc': Facts(
        **TROSSEN,
        command='/{side}_arm_controller/joint_trajectory',
        adapter='joint_trajectory',
        gripper_adapter='parallel_gripper_action',
        gripper_command=(
            '/{side}_gripper_controller/gripper_cmd',
            'follower_{side}_left_carriage_joint',
        ),
    ),
    'ros2_control_dual_forward': Facts(
        **TROSSEN,
        command='/{side}_forward_controller/commands',
        adapter='forward_command',
    ),
}
ROBOTS = sorted(FACTS)


def sided(value, side):
    """What a fact says of one side."""
    if isinstance(value, str):
        return value.format(side=side)
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return value[SIDES.index(side)]
    if isinstance(value, tuple):
        return tuple(sided(v, side) if isinstance(v, str) else v for v in value)
    return value


@pytest.fixture(scope='module', params=ROBOTS)
def name(request):
    return request.param


@pytest.fixture(scope='module')
def facts(name):
    return FACTS[name]


@pytest.fixture(scope='module')
def profile(name):
    return RobotProfile.load(name)


@pytest.fixture(params=SIDES)
def side(request):
    return request.param


@pytest.fixture
def arm(profile, side):
    (found,) = [a for a in profile.arms if a.name == side]
    return found


def test_every_shipped_robot_has_its_facts():
    shipped = {path.stem for path in share_path('config', 'robots').glob('*.yaml')}
    assert shipped == {*FACTS, 'aloha_sim'}


def test_the_arms_are_left_and_right_in_the_14_numbers_of_aloha(profile):
    assert [a.name for a in profile.arms] == list(SIDES)
    assert np.flatnonzero(profile.is_gripper).tolist() == [6, 13]
    assert len(set(profile.action_names)) == 14


def test_topics_and_names(facts, arm, side):
    assert arm.state_topic == sided(facts.state, side)
    assert arm.command_topic == sided(facts.command, side)
    assert arm.adapter == facts.adapter
    assert arm.joints == sided(facts.joints, side)
    assert arm.gripper_joint == sided(facts.gripper, side)
    assert arm.group == ('arm' if facts.adapter == 'interbotix' else '')


def test_the_three_maps_of_a_gripper(facts, arm, side):
    assert arm.observed == GripperMap(*sided(facts.observed, side))
    assert arm.action == GripperMap(*sided(facts.action, side))
    assert arm.command == GripperMap(*sided(facts.commanded, side))
    assert arm.gripper_adapter == facts.gripper_adapter
    command = (arm.gripper_command_topic, arm.gripper_command_name)
    assert command == sided(facts.gripper_command, side)


def test_no_limit_is_wider_than_the_vendor_has_it(facts, arm):
    """Position limits are the vendor's own; speeds may be lower, never higher."""
    if facts.lower is not None:
        np.testing.assert_allclose(arm.lower, facts.lower, atol=5e-5)
        np.testing.assert_allclose(arm.upper, facts.upper, atol=5e-5)
        assert (np.array(arm.lower) >= np.array(facts.lower) - 1e-7).all()
        assert (np.array(arm.upper) <= np.array(facts.upper) + 1e-7).all()
    if facts.velocity is not None:
        assert (np.array(arm.velocity) <= facts.velocity).all()
    assert (np.array(arm.acceleration) <= facts.acceleration).all()


def test_start_pose(facts, arm):
    if facts.start is not None:
        np.testing.assert_allclose(arm.start_pose[:6], facts.start)


def test_rates(facts, profile):
    for rate, published in zip(
        (profile.control_rate, profile.joint_state_rate), facts.rates, strict=True
    ):
        assert published is None or rate == published


def test_cameras(facts, profile):
    assert {c.name: c.topic.removesuffix('/compressed') for c in profile.cameras} == facts.cameras
    assert all((c.type == 'compressed') == c.topic.endswith('/compressed') for c in profile.cameras)
    if facts.camera_rate is not None:
        assert {c.rate for c in profile.cameras} == {facts.camera_rate}


def test_the_start_of_the_cobot_magic_is_the_vendors_ramp():
    profile = RobotProfile.load('cobot_magic')
    step = profile.safety.ramp_velocity / profile.control_rate
    assert step == pytest.approx(0.01)
    gripper = profile.arms[0].command
    assert step * (gripper.open - gripper.closed) <= 0.2
    # Its first pose, whose seventh number is a preset of 3.56 on both sides.
    poses = [arm.command.from_ratio(arm.start_pose[6]) for arm in profile.arms]
    np.testing.assert_allclose(poses, 3.5578, atol=0.02)
