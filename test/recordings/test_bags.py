# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Bags give what the policy node would have been given, or say why not."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import yaml

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.open import open_recordings
from hbvla_ros.recordings.recording import Given
from hbvla_ros.resources import share_path


def check_observations(recording, episode, task, atol=2.0):
    assert len(recording) == len(episode.poses) and recording.instruction == task
    for index, pose in enumerate(episode.poses):
        seen = recording.observation(index)
        assert seen.instruction == task and set(seen.images) == set(episode.images)
        np.testing.assert_allclose(seen.proprioception, pose, atol=1e-9)
        for camera, images in episode.images.items():
            assert seen.images[camera].dtype == np.uint8
            distance = np.abs(seen.images[camera].astype(int) - images[index])
            assert distance.mean() <= atol
    recording.close()


@pytest.mark.parametrize('storage', ['mcap', 'sqlite'])
@pytest.mark.parametrize('raw', [False, True])
def test_bag_of_each_storage_and_image_kind(tmp_path, episode, record, storage, raw):
    path = record.bag(tmp_path / 'bag', episode, storage=getattr(record, storage), raw=raw)
    (recording,) = open_recordings(path, record.needs)
    assert (recording.kind, recording.name) == ('rosbag', 'bag')
    assert recording.observation(2).stamp == pytest.approx(100.08)
    check_observations(recording, episode, record.task, atol=0.0 if raw else 8.0)


def test_storage_files_alone_and_without_definitions(tmp_path, episode, record):
    """Older bags hold no message definitions; those of Jazzy are taken."""
    folder = record.bag(tmp_path / 'bag', episode, storage=record.sqlite, raw=True, version=8)
    database = next(folder.glob('*.db3'))
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute('DELETE FROM message_definitions')
    (recording,) = open_recordings(database, record.needs)
    check_observations(recording, episode, record.task, atol=0.0)
    mcap = record.bag(tmp_path / 'other', episode, raw=True)
    (recording,) = open_recordings(next(mcap.glob('*.mcap')), record.needs)
    check_observations(recording, episode, record.task, atol=0.0)


def test_folder_of_bags(tmp_path, episode, record):
    for name in ('b', 'a'):
        record.bag(tmp_path / 'bags' / name, episode)
    recordings = open_recordings(tmp_path / 'bags', record.needs)
    assert [one.name for one in recordings] == ['a', 'b']
    # The bags hold the same, their files have other names.
    assert recordings[0].digest() != recordings[1].digest()
    assert recordings[0].digest() == open_recordings(tmp_path / 'bags', record.needs)[0].digest()


def test_namespace_of_a_launch_is_found(tmp_path, episode, record):
    path = record.bag(tmp_path / 'bag', episode, namespace='/robot_a')
    check_observations(open_recordings(path, record.needs)[0], episode, record.task, atol=8.0)


def test_simulated_time(tmp_path, episode, record):
    path = record.bag(tmp_path / 'bag', episode, clock=True)
    check_observations(open_recordings(path, record.needs)[0], episode, record.task, atol=8.0)


def test_wall_time_without_clock_says_what_to_record(tmp_path, episode, record):
    def change(topic, index, message):
        return None if topic == '/clock' else message

    path = record.bag(tmp_path / 'bag', episode, clock=True, change=change)
    with pytest.raises(HbvlaError, match=r'cam_\w+ is 17\d+\.\d+ s old.*in simulation /clock'):
        open_recordings(path, record.needs)


def test_instruction_in_force_when_the_frame_was_seen(tmp_path, episode, record):
    """Frames before the first instruction and after an empty one are not used."""
    texts = {1: 'stack the cubes', 3: ''}
    string = record.store.types['std_msgs/msg/String']

    path = record.bag(tmp_path / 'bag', episode, instruction=None)
    with pytest.raises(HbvlaError, match='has no instruction topic; give it with --instruction'):
        open_recordings(path, record.needs)
    (recording,) = open_recordings(path, record.needs, Given(instruction=' wave '))
    assert {recording.observation(i).instruction for i in range(6)} == {'wave'}

    from rosbags.rosbag2 import Reader, Writer

    with Reader(path) as reader, Writer(tmp_path / 'told', version=9) as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=record.store)
            for c in reader.connections
        }
        words = writer.add_connection('/instruction', string.__msgtype__, typestore=record.store)
        messages = list(reader.messages())
        for index, text in texts.items():
            data = record.store.serialize_cdr(string(data=text), string.__msgtype__)
            time = round((100.0 + 0.04 * index - 0.001) * 1e9)
            messages.append((None, time, data))
        for connection, time, data in sorted(messages, key=lambda entry: entry[1]):
            writer.write(connections[connection.id] if connection else words, time, data)
    (recording,) = open_recordings(tmp_path / 'told', record.needs)
    stamps = [round(recording.observation(i).stamp, 3) for i in range(len(recording))]
    # At the moment of the word the frame before is still fresh and was made for nothing yet.
    assert stamps == [100.0, 100.04, 100.08]
    assert {recording.observation(i).instruction for i in range(3)} == {'stack the cubes'}


def test_images_too_far_apart_and_stale_joints_are_no_observation(tmp_path, episode, record):
    def late_camera(topic, index, message):
        if topic == '/cam_left_wrist/image/compressed' and index == 2:
            return None
        return message

    path = record.bag(tmp_path / 'camera', episode, change=late_camera)
    (recording,) = open_recordings(path, record.needs)
    stamps = [recording.observation(i).stamp for i in range(len(recording))]
    np.testing.assert_allclose(stamps, [100.0, 100.04, 100.12, 100.16, 100.2])

    def no_joints(topic, index, message):
        return None if topic == '/right/joint_states' else message

    with pytest.raises(HbvlaError, match='no topic /right/joint_states .arm right of profile'):
        open_recordings(record.bag(tmp_path / 'arm', episode, change=no_joints), record.needs)


def test_latency_of_a_camera_moves_its_stamp(tmp_path, episode, record):
    profile = yaml.safe_load(share_path('config', 'robots').joinpath('aloha_sim.yaml').read_text())
    for camera in profile['cameras']:
        camera['latency'] = 0.018
    (tmp_path / 'slow.yaml').write_text(yaml.safe_dump(profile))
    path = record.bag(tmp_path / 'bag', episode)
    (recording,) = open_recordings(path, record.needs, Given(profile=tmp_path / 'slow.yaml'))
    seen = recording.observation(1)
    assert seen.stamp == pytest.approx(100.04 - 0.018)
    # The sample half a period before is nearer to the exposure than that of the stamp.
    joints = ~RobotProfile.load('aloha_sim').is_gripper
    np.testing.assert_allclose(seen.proprioception[joints], episode.poses[0][joints] + 0.3)


def test_wrong_topics_and_profiles(tmp_path, episode, record):
    path = record.bag(tmp_path / 'bag', episode)
    needs = dataclasses.replace(record.needs, cameras=('cam_high', 'cam_right_wrist'))
    with pytest.raises(HbvlaError) as caught:
        open_recordings(path, needs)
    assert 'no topic /cam_right_wrist/image/compressed (camera cam_right_wrist' in str(caught.value)
    assert 'there are /cam_high/image/compressed, /cam_left_wrist/image' in str(caught.value)
    for changes, message in (
        ({'cameras': ('cam_low',)}, 'needs camera cam_low, the profile aloha_sim has cam_high'),
        ({'proprio_dim': 16}, 'the profile aloha_sim has 14 values, the policy takes 16'),
        ({'robot': 'piper'}, "none is shipped for robot 'piper'"),
    ):
        with pytest.raises(HbvlaError, match=message):
            open_recordings(path, dataclasses.replace(record.needs, **changes))
    needs = dataclasses.replace(record.needs, robot='piper')
    with pytest.raises(HbvlaError, match="is for robot 'aloha_sim', the policy for 'piper'"):
        open_recordings(path, needs, Given(profile='aloha_sim'))


def test_topic_of_another_type(tmp_path, episode, record):
    def change(topic, index, message):
        text = record.store.types['std_msgs/msg/String']
        return text(data='?') if topic.startswith('/cam_high') else message

    path = record.bag(tmp_path / 'bag', episode, change=change)
    with pytest.raises(HbvlaError, match='cam_high/image/compressed is of type std_msgs/msg/Str'):
        open_recordings(path, record.needs)


def test_joint_that_the_profile_lacks(tmp_path, episode, record):
    def change(topic, index, message):
        if topic == '/left/joint_states':
            message.name[message.name.index('left_elbow')] = 'elbow'
        return message

    path = record.bag(tmp_path / 'bag', episode, change=change)
    with pytest.raises(HbvlaError, match="left/joint_states: joint 'left_elbow' is missing"):
        open_recordings(path, record.needs)


def test_empty_and_damaged_bags(tmp_path, episode, record):
    from rosbags.rosbag2 import Writer

    with Writer(tmp_path / 'empty', version=9) as writer:
        writer.add_connection('/cam_high', 'sensor_msgs/msg/Image', typestore=record.store)
    with pytest.raises(HbvlaError, match='empty: the bag is empty'):
        open_recordings(tmp_path / 'empty', record.needs)
    path = record.bag(tmp_path / 'bag', episode)
    file = next(path.glob('*.mcap'))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(HbvlaError, match=r'bag: not a readable bag .*ros2 bag reindex'):
        open_recordings(path, record.needs)
    file.unlink()
    with pytest.raises(HbvlaError, match='not a readable bag .Some database files are missing'):
        open_recordings(path, record.needs)
    (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: 3\n')
    with pytest.raises(HbvlaError, match='not a readable bag'):
        open_recordings(path, record.needs)
    (tmp_path / 'noise.mcap').write_bytes(b'\x00' * 400)
    with pytest.raises(HbvlaError, match=r'noise\.mcap: not a readable bag'):
        open_recordings(tmp_path / 'noise.mcap', record.needs)
    (tmp_path / 'noise.db3').write_bytes(b'no database at all')
    with pytest.raises(HbvlaError, match=r'noise\.db3: not a readable bag'):
        open_recordings(tmp_path / 'noise.db3', record.needs)


def test_damaged_image_is_named_when_it_is_asked_for(tmp_path, episode, record):
    def change(topic, index, message):
        if topic == '/cam_high/image/compressed' and index == 1:
            message.data = message.data[:20]
        return message

    (recording,) = open_recordings(
        record.bag(tmp_path / 'bag', episode, change=change), record.needs
    )
    recording.observation(0)
    with pytest.raises(HbvlaError, match='bag: observation 1, camera cam_high: compressed image'):
        recording.observation(1)


def test_messages_of_one_instant_are_told_apart(tmp_path, episode, record):
    """Two frames of one camera with the same recording time: each observation has its own."""
    path = record.bag(tmp_path / 'bag', episode, raw=True)
    from rosbags.rosbag2 import Reader, Writer

    with Reader(path) as reader, Writer(tmp_path / 'burst', version=9) as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=record.store)
            for c in reader.connections
        }
        for connection, time, data in reader.messages():
            # Everything after the third frame arrives at once, as after a hiccup of the disk.
            late = round(100.2 * 1e9)
            writer.write(connections[connection.id], late if time > 100.1e9 else time, data)
    shutil.rmtree(path)
    (recording,) = open_recordings(tmp_path / 'burst', record.needs)
    stamps = [recording.observation(i).stamp for i in range(len(recording))]
    assert len(recording) == 6 and stamps == sorted(stamps)
    last = recording.observation(5)
    for camera, images in episode.images.items():
        assert np.array_equal(last.images[camera], images[5])
