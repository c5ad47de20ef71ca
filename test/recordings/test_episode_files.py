# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Episodes in single files, and recognising what lies at a path."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
import simplejpeg

from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.open import open_recordings
from hbvla_ros.recordings.recording import Given


def check_observations(recording, episode, task, atol):
    assert len(recording) == len(episode.poses) and recording.instruction == task
    for index, pose in enumerate(episode.poses):
        seen = recording.observation(index)
        np.testing.assert_allclose(seen.proprioception, pose, atol=1e-6)
        assert (seen.instruction, seen.stamp) == (task, float(index))
        for camera, images in episode.images.items():
            assert np.abs(seen.images[camera].astype(int) - images[index]).mean() <= atol
    recording.close()
    recording.observation(0)
    recording.close()


def test_simulator_episode(tmp_path, episode, record):
    path = record.npz(tmp_path / 'episode_7.npz', episode)
    (recording,) = open_recordings(path, record.needs)
    assert (recording.kind, recording.name) == ('simulator', 'episode_7.npz')
    check_observations(recording, episode, record.task, atol=8.0)
    with np.load(path) as arrays:
        begin, end = arrays['offset_cam_high'][3:5]
        data = arrays['jpeg_cam_high'][begin:end].tobytes()
    seen = recording.observation(3).images['cam_high']
    assert np.array_equal(seen, simplejpeg.decode_jpeg(data))


@pytest.mark.parametrize('compress', [False, True])
def test_aloha_episode(tmp_path, episode, record, compress):
    path = record.hdf5(tmp_path / 'episode_0.hdf5', episode, compress)
    (recording,) = open_recordings(path, record.needs)
    assert recording.kind == 'aloha_hdf5'
    check_observations(recording, episode, record.task, atol=8.0 if compress else 0.0)
    (swapped,) = open_recordings(path, record.needs, Given(colours='bgr'))
    seen = recording.observation(2).images['cam_high']
    assert np.array_equal(swapped.observation(2).images['cam_high'], seen[..., ::-1])
    with pytest.raises(HbvlaError, match="channel order 'RGB': must be rgb or bgr"):
        open_recordings(path, record.needs, Given(colours='RGB'))


def test_images_of_varying_length(tmp_path, episode, record):
    """Some recorders store each JPEG as long as it is."""
    path = record.hdf5(tmp_path / 'episode_0.hdf5', episode, compress=True)
    with h5py.File(path, 'r+') as file:
        for camera, images in episode.images.items():
            del file[f'observations/images/{camera}']
            kind = h5py.vlen_dtype(np.dtype('uint8'))
            data = file.create_dataset(f'observations/images/{camera}', (len(images),), kind)
            for index, image in enumerate(images):
                encoded = simplejpeg.encode_jpeg(image.copy(), 95, colorspace='BGR')
                data[index] = np.frombuffer(encoded, np.uint8)
    check_observations(open_recordings(path, record.needs)[0], episode, record.task, atol=8.0)


@pytest.mark.parametrize(
    'place', ['/attribute task', '/dataset instruction', 'observations/dataset language_raw']
)
def test_instruction_wherever_it_stands(tmp_path, episode, record, place):
    path = record.hdf5(tmp_path / 'episode_0.hdf5', episode, text=None)
    with pytest.raises(HbvlaError, match=r'episode_0\.hdf5: does not say .*--instruction'):
        open_recordings(path, record.needs)
    (recording,) = open_recordings(path, record.needs, Given(instruction='wave'))
    assert recording.instruction == 'wave'
    group, _, key = place.rpartition(' ')
    with h5py.File(path, 'r+') as file:
        if group == '/attribute':
            file.attrs[key] = np.bytes_('fold the shirt')
        elif group == '/dataset':
            file[key] = 'fold the shirt'
        else:
            file[f'observations/{key}'] = np.array([b'fold the shirt', b'fold it'])
    (recording,) = open_recordings(path, record.needs, Given(instruction='wave'))
    assert recording.observation(1).instruction == 'fold the shirt'


def test_camera_names(tmp_path, episode, record):
    path = record.hdf5(tmp_path / 'episode_0.hdf5', episode)
    with h5py.File(path, 'r+') as file:
        file.move('observations/images/cam_high', 'observations/images/top')
        file.move('observations/images/cam_left_wrist', 'observations/images/gripper_view')
    with pytest.raises(HbvlaError, match='no camera cam_left_wrist in .*there are gripper_view, t'):
        open_recordings(path, record.needs)
    given = Given(camera_names={'cam_left_wrist': 'gripper_view'})
    check_observations(open_recordings(path, record.needs, given)[0], episode, record.task, 0.0)
    with pytest.raises(HbvlaError, match='no camera wrist in'):
        open_recordings(path, record.needs, Given(camera_names={'cam_left_wrist': 'wrist'}))


def test_misfits_and_damage(tmp_path, episode, record):
    path = record.hdf5(tmp_path / 'episode_0.hdf5', episode, compress=True)
    with pytest.raises(HbvlaError, match='/observations/qpos has 14 values, the policy takes 16'):
        open_recordings(path, dataclasses.replace(record.needs, proprio_dim=16))
    with h5py.File(path, 'r+') as file:
        file['observations/images/cam_high'][4, :] = 7
    (recording,) = open_recordings(path, record.needs)
    recording.observation(3)
    with pytest.raises(HbvlaError, match=r'episode_0\.hdf5: frame 4 of cam_high is damaged'):
        recording.observation(4)
    recording.close()
    with h5py.File(path, 'r+') as file:
        joints = file['observations/qpos'][:-1]
        del file['observations/qpos']
        file['observations/qpos'] = joints
    with pytest.raises(HbvlaError, match=r'cam_high has shape \(6, .*qpos has 5 frames'):
        open_recordings(path, record.needs)
    with h5py.File(path, 'r+') as file:
        del file['observations/qpos']
    with pytest.raises(HbvlaError, match='no /observations/qpos; an ACT or ALOHA episode has'):
        open_recordings(path, record.needs)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(HbvlaError, match='not a readable HDF5 file; record the episode again'):
        open_recordings(path, record.needs)


def test_folders_and_what_is_in_them(tmp_path, episode, record):
    with pytest.raises(HbvlaError, match='nowhere: no such folder or file'):
        open_recordings(tmp_path / 'nowhere', record.needs)
    with pytest.raises(HbvlaError, match='no recorded episode in it; hbvla demos writes'):
        open_recordings(tmp_path, record.needs)
    for number in (3, 1):
        record.npz(tmp_path / f'episode_{number}.npz', episode)
    np.savez(tmp_path / 'statistics.npz', mean=np.zeros(3))
    (tmp_path / 'dataset.json').write_text('{}')
    found = open_recordings(tmp_path, record.needs)
    assert [one.name for one in found] == ['episode_1.npz', 'episode_3.npz']
    record.hdf5(tmp_path / 'episode_0.hdf5', episode)
    with pytest.raises(HbvlaError, match=r'several kinds .*_0\.hdf5, episode_1\.npz'):
        open_recordings(tmp_path, record.needs)
    with pytest.raises(HbvlaError, match=r'dataset\.json: not a recorded episode'):
        open_recordings(tmp_path / 'dataset.json', record.needs)
    (tmp_path / 'old.bag').write_bytes(b'#ROSBAG V2.0')
    with pytest.raises(HbvlaError, match='a ROS 1 bag; convert it with "rosbags-convert'):
        open_recordings(tmp_path / 'old.bag', record.needs)


def test_a_folder_for_each_task(tmp_path, episode, record):
    """What ``hbvla demos --task all`` makes, and nothing that lies deeper."""
    for task in ('stack', 'insertion'):
        (tmp_path / 'all' / task).mkdir(parents=True)
        record.npz(tmp_path / 'all' / task / 'episode_1.npz', episode)
    found = open_recordings(tmp_path / 'all', record.needs)
    assert [one.path.parent.name for one in found] == ['insertion', 'stack']
    with pytest.raises(HbvlaError, match='no recorded episode in it'):
        open_recordings(tmp_path, record.needs)
    record.hdf5(tmp_path / 'all' / 'stack' / 'episode_0.hdf5', episode)
    with pytest.raises(HbvlaError, match='several kinds'):
        open_recordings(tmp_path / 'all', record.needs)
