# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The bag of a demonstration through ROS's own deserializer and the readers of the nodes."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.adapters import make_adapter
from hbvla_ros.nodes.conversions import decode_image, message_to_chunk, to_seconds
from hbvla_ros.recordings.demo_bags import write_bag
from hbvla_ros.recordings.recording import Needs
from hbvla_ros.recordings.simulator import SimulatorEpisode

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = tuple(camera.name for camera in PROFILE.cameras)
KINDS = {kind.__name__: kind for kind in (
    Clock, CompressedImage, JointState, Float64MultiArray, String, JointTrajectory,
)}  # fmt: skip
FRAMES = 3


@pytest.fixture
def demo(tmp_path):
    """Three frames as ``hbvla demos`` writes them."""
    random = np.random.default_rng(2)
    arrays = {
        'proprioception': random.uniform(0, 1, (FRAMES, 14)).astype(np.float32),
        'chunks': random.uniform(0, 1, (FRAMES, 16, 14)).astype(np.float32),
        'instruction': np.array('put the red cube into the bucket'),
    }
    for camera in CAMERAS:
        images = (
            random.integers(0, 256, (FRAMES, 8, 8, 3), dtype=np.uint8).repeat(6, 1).repeat(6, 2)
        )
        files = [simplejpeg.encode_jpeg(image, 95, 'RGB', '420') for image in images]
        arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(files), np.uint8)
        arrays[f'offset_{camera}'] = np.cumsum([0, *map(len, files)])
    np.savez(tmp_path / 'episode_7.npz', **arrays)
    return tmp_path / 'episode_7.npz'


@pytest.fixture
def heard(demo, tmp_path):
    """Messages by topic, as ``ros2 bag play`` would publish them."""
    write_bag(demo, tmp_path / 'bag', PROFILE, 0.12, 0.04)
    found: dict[str, list] = {}
    with Reader(tmp_path / 'bag') as reader:
        for connection, _, data in reader.messages():
            kind = KINDS[connection.msgtype.rpartition('/')[2]]
            found.setdefault(connection.topic, []).append(deserialize_message(bytes(data), kind))
    return found


def test_the_nodes_see_what_the_file_holds(demo, heard):
    episode = SimulatorEpisode(demo, Needs(CAMERAS, 14, 'aloha_sim'))
    assert [one.data for one in heard['/instruction']] == [episode.instruction]
    np.testing.assert_allclose([to_seconds(one.clock) for one in heard['/clock']], [1, 1.12, 1.24])
    for index in range(FRAMES):
        expected = episode.observation(index)
        for camera in PROFILE.cameras:
            message = heard[f'/{camera.topic}'][index]
            np.testing.assert_array_equal(decode_image(message), expected.images[camera.name])
        parts = [observed_pose(arm, heard[f'/{arm.state_topic}'][index]) for arm in PROFILE.arms]
        np.testing.assert_allclose(np.concatenate(parts), expected.proprioception, atol=1e-7)


def test_the_robot_is_told_what_the_expert_commands(demo, heard):
    with np.load(demo) as content:
        chunks = content['chunks']
    for index in range(FRAMES):
        parts = [
            make_adapter(arm).parse(heard[f'/{arm.command_topic}'][index]) for arm in PROFILE.arms
        ]
        np.testing.assert_allclose(np.concatenate(parts), chunks[index, 0], atol=1e-7)
        chunk = message_to_chunk(heard['/action_chunks'][index], PROFILE.action_names)
        np.testing.assert_array_equal(chunk.actions, chunks[index].astype(np.float64))
        assert chunk.step == pytest.approx(0.04) and chunk.checkpoint == 'expert'
        assert chunk.start == pytest.approx(1 + 0.12 * index)
