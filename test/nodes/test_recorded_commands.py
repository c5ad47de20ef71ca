# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the adapters send is what the reader of bags says was commanded."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters import Motion, make_adapter
from hbvla_ros.recordings.bag_commands import RecordedCommands
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.bag_stream import stream
from hbvla_ros.recordings.bag_topics import BagTopics
from hbvla_ros.recordings.message_types import message_types

START, PERIOD = 1_700_000_000.0, 0.04


def kind_of(message):
    package, _, _ = type(message).__module__.partition('.')
    return f'{package}/msg/{type(message).__name__}'


def write(path, profile, sent):
    """A bag of (time, arm index, message), as the adapters made them."""
    with Writer(path, version=9) as writer:
        connections = {}
        for time, index, message in sent:
            topic = profile.arms[index].command_topic
            topic = topic if topic.startswith('/') else f'/{topic}'
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kind_of(message), typestore=message_types()
                )
            data = serialize_message(message)
            writer.write(connections[topic], round(time * 1e9), bytes(data))
    return path


def read(path, profile):
    with BagFile(path) as bag:
        commands = RecordedCommands(path, bag.topics, BagTopics({}, {}, (), False, ''), profile)
        for message in stream(bag, commands.topics):
            commands.add(message.topic, message.content, message.received * 1e-9)
    return commands.poses


@pytest.mark.parametrize('robot', ['aloha_sim', 'cobot_magic', 'ros2_control_dual_forward'])
def test_streams_of_positions(tmp_path, robot):
    profile = RobotProfile.load(robot)
    random = np.random.default_rng(4)
    poses = profile.start_pose + random.uniform(-0.2, 0.2, (6, len(profile.action_names)))
    sent = [
        (START + PERIOD * turn, index, make_adapter(arm).build(part, START + PERIOD * turn))
        for turn, pose in enumerate(poses)
        for index, (arm, part) in enumerate(zip(profile.arms, profile.split(pose), strict=True))
    ]
    known = read(write(tmp_path / 'bag', profile, sent), profile)
    told = known.at(START + PERIOD * np.arange(6))
    known_columns = ~np.isnan(told[0])
    assert known_columns[~profile.is_gripper].all()
    np.testing.assert_allclose(told[:, known_columns], poses[:, known_columns], atol=1e-5)
    # Between two commands joints are on their way, grippers not yet.
    half = known.at([START + PERIOD / 2])[0]
    joints = ~profile.is_gripper
    np.testing.assert_allclose(half[joints], poses[:2, joints].mean(axis=0), atol=1e-5)
    grippers = profile.is_gripper & known_columns
    np.testing.assert_allclose(half[grippers], poses[0, grippers], atol=1e-6)
    assert np.isnan(known.at([START - 0.01, START + 1.0])).all()


def test_trajectories_are_replaced_by_those_after_them(tmp_path):
    profile = RobotProfile.load('ros2_control_dual_jtc')
    width = len(profile.action_names)
    start = profile.start_pose
    # The first trajectory rises for 0.4 s; after 0.2 s another one leads back.
    up = start + 0.1 * np.arange(11)[:, None] * np.ones(width) * 0.1
    down = up[5] - 0.1 * np.arange(11)[:, None] * np.ones(width) * 0.1
    sent = []
    for time, rows in ((START, up), (START + 0.2, down)):
        for index, arm in enumerate(profile.arms):
            parts = np.array([profile.split(row)[index] for row in rows])
            message = make_adapter(arm).build_motion(Motion(time, PERIOD, parts))
            sent.append((time, index, message))
    told = read(write(tmp_path / 'bag', profile, sent), profile).at(
        START + PERIOD * np.arange(1, 13)
    )
    joints = ~profile.is_gripper
    expected = np.concatenate([up[1:6], down[1:8]])
    np.testing.assert_allclose(told[:, joints], expected[:, joints], atol=1e-5)


def test_commands_of_another_robot(tmp_path):
    profile = RobotProfile.load('aloha_sim')
    arm = profile.arms[0]
    message = make_adapter(arm).build(profile.split(profile.start_pose)[0], START)
    both = [(START, 0, message), (START, 1, message)]
    path = write(tmp_path / 'bag', profile, both)
    with pytest.raises(HbvlaError, match=r'no commands on .*--against poses'):
        read(path, RobotProfile.load('cobot_magic'))
    message.data = message.data[:5]
    path = write(tmp_path / 'short', profile, both)
    with pytest.raises(HbvlaError, match='short: /left/commands: 5 numbers for 7 joints'):
        read(path, profile)
