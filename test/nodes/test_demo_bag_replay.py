# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The bag of a demonstration through ROS's own deserializer and the readers of the nodes."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import simplejpeg
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk
from hbvla_ros.nodes.adapters import make_adapter
from hbvla_ros.nodes.conversions import decode_image, message_to_chunk, to_seconds
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.recordings.demo_bags import write_bag
from hbvla_ros.recordings.recording import Needs
from hbvla_ros.recordings.simulator import SimulatorEpisode
from hbvla_ros.vla.platform import ALOHA

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
    clock = [to_seconds(one.clock) for one in heard['/clock']]
    np.testing.assert_allclose(clock, 1 + 0.02 * np.arange(18), atol=1e-9)
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


class Witness:
    """Stands in for the network and keeps what it is given."""

    checkpoint = 'witness-0000'
    platform = dataclasses.replace(ALOHA, robot='aloha_sim', cameras=CAMERAS, chunk=10)

    def __init__(self):
        self.observations = []

    def warmup(self):
        pass

    def act(self, observation):
        self.observations.append(observation)
        rows = np.tile(observation.proprioception, (10, 1))
        return ActionChunk(rows, observation.stamp, 0.04, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip


def test_a_replayed_bag_gives_the_policy_what_the_file_holds(demo, tmp_path, graph, wait):
    write_bag(demo, tmp_path / 'bag', PROFILE, 0.12, 0.04)
    policy, player = Witness(), graph.add(Node, 'player')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with Reader(tmp_path / 'bag') as reader:
        publishers = {
            one.topic: player.create_publisher(
                KINDS[one.msgtype.rpartition('/')[2]], one.topic,
                latched if one.topic == '/instruction' else QoSProfile(depth=10),
            )
            for one in reader.connections if one.topic != '/action_chunks'
        }  # fmt: skip
        node = graph.add(PolicyNode, lambda values: policy, use_sim_time=True)
        node.start()
        played = [topic for topic in publishers if not topic.endswith('commands')]
        assert wait(lambda: all(publishers[t].get_subscription_count() for t in played))
        # As "ros2 bag play --rate 0.25" does, so that a busy machine keeps up.
        started = None
        for connection, moment, data in reader.messages():
            started = started or time.monotonic() - 4e-9 * moment
            time.sleep(max(0.0, started + 4e-9 * moment - time.monotonic()))
            if connection.topic in publishers:
                publishers[connection.topic].publish(bytes(data))
    assert wait(lambda: len(policy.observations) == FRAMES)
    episode = SimulatorEpisode(demo, Needs(CAMERAS, 14, 'aloha_sim'))
    for index, seen in enumerate(policy.observations):
        expected = episode.observation(index)
        assert seen.instruction == expected.instruction
        assert seen.stamp == pytest.approx(1 + 0.12 * index)
        np.testing.assert_allclose(seen.proprioception, expected.proprioception, atol=1e-7)
        for camera in CAMERAS:
            np.testing.assert_array_equal(seen.images[camera], expected.images[camera])
