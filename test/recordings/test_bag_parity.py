# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The node's own readers, fed a bag message by message, see what the reader of bags gives."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy')
from rclpy.serialization import deserialize_message  # noqa: E402
from rosbags.rosbag2 import Reader  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, JointState  # noqa: E402

from hbvla_ros.control.profile import RobotProfile  # noqa: E402
from hbvla_ros.control.schedule import InferenceSchedule  # noqa: E402
from hbvla_ros.nodes import joint_reader  # noqa: E402
from hbvla_ros.nodes.conversions import decode_image  # noqa: E402
from hbvla_ros.nodes.frames import FrameReader  # noqa: E402
from hbvla_ros.nodes.joint_reader import JointReader  # noqa: E402
from hbvla_ros.recordings.open import open_recordings  # noqa: E402


class StubNode:
    """Keeps the callbacks of a reader's subscriptions, by topic."""

    def __init__(self):
        self.callbacks = {}
        self.nanoseconds, self.ros_time_is_active = 0, False

    def create_subscription(self, _kind, topic, callback, _quality):
        self.callbacks[f'/{topic}'] = callback

    def get_clock(self):
        return self

    def now(self):
        return self

    def monotonic(self):
        """The stub's one clock is both the system's and the monotonic one."""
        return self.nanoseconds * 1e-9

    def get_logger(self):
        return self

    def error(self, _text, throttle_duration_sec=0.0):
        """Nothing is logged."""


def seen_live(path, cameras, profile, monkeypatch):
    """Stamps, poses and decoded images, by the rules of policy_node, of every new observation."""
    node = StubNode()
    monkeypatch.setattr(joint_reader, 'time', node)
    joints = JointReader(node, profile)
    frames = FrameReader(node, profile, cameras, joints, lambda: None)
    schedule, found = InferenceSchedule(0.0), []
    kinds = {kind.__name__: kind for kind in (CompressedImage, Image, JointState)}
    with Reader(path) as reader:
        for connection, time, data in sorted(reader.messages(), key=lambda entry: entry[1]):
            if connection.topic not in node.callbacks:
                continue
            node.nanoseconds = time
            kind = kinds[connection.msgtype.rpartition('/')[2]]
            node.callbacks[connection.topic](deserialize_message(data, kind))
            chosen, _ = frames.observation(schedule.is_new)
            if chosen is None:
                continue
            schedule.start(time * 1e-9, chosen.stamp)
            images = {name: decode_image(f.payload) for name, f in chosen.frames.items()}
            found.append((chosen.stamp, chosen.pose, images))
    return found


@pytest.mark.parametrize('seed', range(6))
def test_reader_of_bags_sees_what_the_node_sees(tmp_path, record, seed, monkeypatch):
    random = np.random.default_rng(seed)
    episode = record.episode(25)

    def disturb(topic, index, message):
        """Lost and late messages, jittering stamps, a driver that pauses, joints that are NaN."""
        if topic.endswith('instruction'):
            return message
        if random.random() < 0.1 or (topic == '/right/joint_states' and 8 <= index < 12):
            return None
        if random.random() < 0.5:
            nanosec = message.header.stamp.nanosec + int(random.integers(-20_000_000, 20_000_000))
            message.header.stamp.nanosec = min(max(nanosec, 0), 999_999_999)
        if 'joint' in topic and random.random() < 0.05:
            message.position[3] = float('nan')
        return message

    # From the middle of a second, so that stamps may be moved without a carry.
    path = record.bag(
        tmp_path / 'bag', episode, raw=bool(seed % 2), change=disturb, start=100.2, period=0.025
    )
    profile = RobotProfile.load('aloha_sim')
    cameras = [camera for camera in profile.cameras if camera.name in record.needs.cameras]
    live = seen_live(path, cameras, profile, monkeypatch)
    (recording,) = open_recordings(path, record.needs)
    assert len(recording) == len(live) > 5
    for index, (stamp, pose, images) in enumerate(live):
        seen = recording.observation(index)
        assert seen.stamp == stamp and np.array_equal(seen.proprioception, pose)
        for camera, image in images.items():
            assert np.array_equal(seen.images[camera], image)
