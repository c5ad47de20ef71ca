# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A bag played for the live nodes: they see what was recorded, and move within the limits."""

from __future__ import annotations

import dataclasses
import signal

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Float64MultiArray, String

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.data import ActionChunk
from hbvla_ros.nodes.arm_node import ArmNode
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.nodes.replay_node import ReplayNode
from hbvla_ros.recordings.fixture import FixtureOptions, Motion, write_fixture
from hbvla_ros.vla.platform import ALOHA

ROWS, STEP, SECONDS = 16, 0.04, 2.0
START = 1_700_000_000.0
TASK = 'put the red cube into the bucket'


class Recorder:
    """Stands in for the network: commands what was recorded."""

    checkpoint = 'recorder-0000'

    def __init__(self, profile):
        cameras = tuple(camera.name for camera in profile.cameras)
        self.platform = dataclasses.replace(ALOHA, robot=profile.robot, cameras=cameras, chunk=ROWS)
        self._motion = Motion(profile, 0)
        self.observations = []

    def warmup(self):
        pass

    def act(self, observation):
        self.observations.append(observation)
        due = observation.stamp - START + STEP * np.arange(ROWS)
        rows = np.array([self._motion.at(time) for time in due])
        return ActionChunk(rows, observation.stamp, STEP, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip


class Audience(Node):
    """Listens to everything that is played, as the nodes of a robot do."""

    def __init__(self, profile, **options):
        super().__init__('audience', **options)
        self.heard, self.clock = {}, []
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for camera in profile.cameras:
            self._listen(CompressedImage, camera.topic, 100)
        for arm in profile.arms:
            self._listen(JointState, arm.state_topic, 200)
        self._listen(String, 'instruction', latched)
        self.create_subscription(
            Clock, '/clock', lambda m: self.clock.append(to_seconds(m.clock)), 100
        )

    def _listen(self, kind, topic, quality):
        self.heard[topic] = []
        self.create_subscription(kind, topic, self.heard[topic].append, quality)


class Wire(Node):
    """Records the commands."""

    def __init__(self, profile, **options):
        super().__init__('wire', **options)
        self.commands = {arm.name: [] for arm in profile.arms}
        for arm in profile.arms:
            self.create_subscription(
                Float64MultiArray, arm.command_topic, self.commands[arm.name].append, 200
            )

    def poses(self, profile):
        """Commands as poses (N, A), arms side by side."""
        arms = []
        for arm in profile.arms:
            rows = np.array([message.data for message in self.commands[arm.name]])
            arms.append(np.column_stack([rows[:, :-1], arm.command.to_ratio(rows[:, -1])]))
        count = min(map(len, arms))
        return np.concatenate([rows[:count] for rows in arms], axis=1)


@pytest.fixture
def bag(tmp_path, profile):
    write_fixture(tmp_path / 'bag', profile, FixtureOptions(seconds=SECONDS))
    return tmp_path / 'bag'


def test_what_was_recorded_is_heard_in_the_bags_time(graph, wait, profile, bag):
    player = graph.add(ReplayNode, bag=str(bag), rate=0.5, linger=0.2)
    player.start()
    assert not player.finished and player.played == 0
    audience = graph.add(Audience, profile)
    assert wait(lambda: player.finished or player.failure) and player.failure == ''
    assert wait(lambda: len(audience.heard['instruction']) == 1)
    assert audience.heard['instruction'][0].data == TASK
    motion = Motion(profile, 0)
    for arm, first in zip(profile.arms, (0, 7), strict=True):
        states = audience.heard[arm.state_topic]
        # Never exactly all: the machine may be busy, and who listens came while it was waiting.
        assert 80 <= len(states) <= 100
        for message in states[:: len(states) // 10]:
            time = to_seconds(message.header.stamp) - START - 0.04
            pose = motion.at(time)[first : first + 7]
            np.testing.assert_allclose(observed_pose(arm, message), pose, atol=1e-6)
    for camera in profile.cameras:
        assert 40 <= len(audience.heard[camera.topic]) <= 50
    clock = np.array(audience.clock) - START
    assert (np.diff(clock) >= 0).all() and clock[0] == 0.0 and clock[-1] > SECONDS
    # Commands and chunks of the recording are not played.
    assert player.count_publishers('left/commands') == 0


def test_policy_and_arms_live_on_a_bag(graph, wait, profile, bag):
    policy, wire = Recorder(profile), graph.add(Wire, profile)
    nodes = [
        graph.add(ArmNode, use_sim_time=True),
        graph.add(PolicyNode, lambda values: policy, use_sim_time=True),
    ]
    for node in nodes:
        node.start()
    # At a quarter of its pace, so that a busy machine keeps up.
    player = graph.add(ReplayNode, bag=str(bag), rate=0.25)
    player.start()
    assert wait(lambda: player.finished or player.failure) and player.failure == ''
    seen = policy.observations
    assert len(seen) >= 4 and {one.instruction for one in seen} == {TASK}
    motion, joints = Motion(profile, 0), ~profile.is_gripper
    for one in seen:
        measured = motion.at(one.stamp - START - 0.04)
        assert np.abs(one.proprioception - measured).max() < 0.05
        assert all(image.shape == (48, 64, 3) for image in one.images.values())
    poses, stage = wire.poses(profile), SafetyStage.of(profile)
    assert len(poses) >= 20
    assert (poses >= stage.lower - 1e-6).all() and (poses <= stage.upper + 1e-6).all()
    assert (np.abs(np.diff(poses, axis=0)) <= stage.velocity * stage.period + 1e-6).all()
    # They went along with the recording: each joint as far as most of its swing.
    assert (np.ptp(poses, axis=0)[joints] > 0.05).all()


def test_a_simulated_robots_own_clock_is_played(graph, wait, profile, tmp_path):
    options = FixtureOptions(seconds=0.5, simulated=True)
    write_fixture(tmp_path / 'bag', profile, options)
    audience = graph.add(Audience, profile)
    player = graph.add(ReplayNode, bag=str(tmp_path / 'bag'), linger=0.0)
    player.start()
    assert wait(lambda: player.finished or player.failure) and player.failure == ''
    assert wait(lambda: len(audience.clock) >= 30)
    assert 1.0 <= audience.clock[0] and audience.clock[-1] == pytest.approx(1.49)


def test_nobody_listens(graph, wait, bag):
    player = graph.add(ReplayNode, bag=str(bag), patience=0.5)
    player.start()
    assert wait(lambda: player.failure != '')
    assert 'nobody listens to cam_high/image/compressed, ' in player.failure
    assert player.played == 0 and not player.finished


def test_a_robot_in_the_same_graph_is_not_disturbed(graph, wait, profile, bag, robot):
    """A driver that publishes joint states would follow the commands of a replay."""
    graph.add(Audience, profile)
    assert wait(lambda: robot.count_publishers('left/joint_states') >= 1)
    player = graph.add(ReplayNode, bag=str(bag), rate=0.05)
    assert wait(lambda: player.count_publishers('left/joint_states') >= 1)
    player.start()
    assert wait(lambda: player.failure != '')
    assert 'fake_robot publishes ' in player.failure and 'ROS_DOMAIN_ID' in player.failure


def test_a_namespace_and_few_cameras(graph, wait, profile, bag):
    """Topics of the bag have none; those of the profile are relative to the node's."""
    from rclpy.parameter import Parameter

    heard = []
    listener = graph.add(Node, 'listener')
    overrides = {'bag': str(bag), 'cameras': 'cam_high', 'patience': 0.0, 'linger': 0.0}
    player = ReplayNode(
        context=graph.context, namespace='ghost',
        parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
    )  # fmt: skip
    graph._nodes.append(player)
    graph.executor.add_node(player)
    listener.create_subscription(JointState, '/ghost/left/joint_states', heard.append, 100)
    assert wait(lambda: listener.count_subscribers('/ghost/left/joint_states') == 1)
    player.start()
    assert wait(lambda: player.finished or player.failure) and player.failure == ''
    assert player.count_publishers('/ghost/cam_high/image/compressed') == 1
    assert player.count_publishers('/ghost/cam_left_wrist/image/compressed') == 0


def test_as_a_process_it_ends_with_the_bag(graph, wait, profile, bag):
    graph.add(Audience, profile)
    process = graph.process('replay_node', bag=bag, linger=0.1)
    assert process.wait() == 0
    process_says = ''.join(process.lines)
    assert 'waiting for subscribers' in process_says and '451 messages played' not in process_says
    # 100 joint states an arm, 50 images a camera, the instruction.
    assert '351 messages played' in process_says


def test_as_a_process_it_leaves_on_a_signal(graph, bag):
    process = graph.process('replay_node', bag=bag)
    process.says('waiting for subscribers')
    process.process.send_signal(signal.SIGINT)
    assert process.wait_at_most(2.0) == 0


@pytest.mark.parametrize(
    'parameters, expected',
    [
        ({}, 'parameter bag is empty: give a bag folder'),
        ({'bag': '/none'}, '/none: not a readable bag'),
        ({'rate': 0.0}, 'parameter rate: '),
        ({'robot': 'r2d2'}, "unknown robot 'r2d2'"),
        ({'cameras': 'cam_low'}, 'needs camera cam_low, the profile aloha_sim has cam_high'),
    ],
)
def test_bad_input_is_an_error_line_and_exit_2(graph, bag, parameters, expected):
    if parameters and 'bag' not in parameters:
        parameters = {'bag': bag, **parameters}
    process = graph.process('replay_node', **parameters)
    assert process.wait() == 2
    errors = [line for line in process.lines if '[ERROR]' in line]
    assert any(expected in line for line in errors), ''.join(process.lines)
    assert 'Traceback' not in ''.join(process.lines)
