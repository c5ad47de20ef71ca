# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""LIBERO's demonstration files, in the layout of LIBERO's and of OpenVLA's own writers."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.open import open_recordings
from hbvla_ros.recordings.recording import Given, Needs

NEEDS = Needs(('agentview_image', 'robot0_eye_in_hand_image'), 8, 'libero')
LENGTHS = {'demo_0': 3, 'demo_2': 1, 'demo_10': 2}
NAME = 'pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate_demo.hdf5'


def write(path, lengths=LENGTHS, attributes=None):
    random = np.random.default_rng(1)
    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        data.attrs.update(attributes or {})
        for demo, length in lengths.items():
            seen = data.create_group(f'{demo}/obs')
            for key, width in (('ee_pos', 3), ('ee_ori', 3), ('gripper_states', 2),
                               ('joint_states', 7)):  # fmt: skip
                seen[key] = random.normal(size=(length, width))
            for key in ('agentview_rgb', 'eye_in_hand_rgb'):
                seen[key] = random.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8)
    return path


def test_each_demonstration_is_a_recording_in_the_order_they_were_made(tmp_path):
    path = write(tmp_path / NAME)
    recordings = open_recordings(path, NEEDS)
    assert [(one.name, len(one)) for one in recordings] == [
        (f'{NAME}:{demo}', length) for demo, length in LENGTHS.items()
    ]
    with h5py.File(path) as file:
        for recording, demo in zip(recordings, LENGTHS, strict=True):
            assert recording.kind == 'libero_hdf5' and recording.path == path
            seen = file[f'data/{demo}/obs']
            for frame in range(len(recording)):
                observation = recording.observation(frame)
                assert observation.instruction == (
                    'pick up the black bowl next to the plate and place it on the plate'
                )
                np.testing.assert_array_equal(
                    observation.images['agentview_image'], seen['agentview_rgb'][frame]
                )
                np.testing.assert_array_equal(
                    observation.images['robot0_eye_in_hand_image'], seen['eye_in_hand_rgb'][frame]
                )
                parts = [seen[key][frame] for key in ('ee_pos', 'ee_ori', 'gripper_states')]
                np.testing.assert_array_equal(observation.proprioception, np.concatenate(parts))
    recordings[0].close()
    assert len({one.digest() for one in recordings}) == 3


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it_demo.hdf5',
         'turn on the stove and put the moka pot on it'),
        ('LIVING_ROOM_SCENE10_stack_the_left_bowl_demo.hdf5', 'stack the left bowl'),
        ('open_the_middle_drawer_of_the_cabinet_demo.hdf5',
         'open the middle drawer of the cabinet'),
    ],
)  # fmt: skip
def test_the_instruction_is_read_off_the_name(tmp_path, name, text):
    recording, *_ = open_recordings(write(tmp_path / name), NEEDS)
    assert recording.instruction == text


def test_under_another_name_the_file_or_the_user_says_it(tmp_path):
    told = {'problem_info': json.dumps({'language_instruction': 'open the drawer '})}
    recording, *_ = open_recordings(write(tmp_path / 'a.hdf5', attributes=told), NEEDS)
    assert recording.instruction == 'open the drawer'
    path = write(tmp_path / 'b.hdf5')
    recording, *_ = open_recordings(path, NEEDS, Given(instruction='close it'))
    assert recording.instruction == 'close it'
    with pytest.raises(HbvlaError, match=f'^{path}: does not say its task; give it with'):
        open_recordings(path, NEEDS)


def test_a_folder_holds_the_demonstrations_of_all_its_tasks(tmp_path):
    for name in ('a_demo.hdf5', 'b_demo.hdf5'):
        write(tmp_path / name, {'demo_0': 1, 'demo_1': 0, 'demo_2': 1})
    found = [(one.instruction, one.name[-6:]) for one in open_recordings(tmp_path, NEEDS)]
    assert found == [('a', 'demo_0'), ('a', 'demo_2'), ('b', 'demo_0'), ('b', 'demo_2')]


def test_a_policy_without_wrist_camera_and_proprioception(tmp_path):
    needs = Needs(('agentview_image',), 0, 'libero')
    recording, *_ = open_recordings(write(tmp_path / NAME), needs)
    assert list(recording.observation(2).images) == ['agentview_image']


def remove(path, key):
    with h5py.File(path, 'r+') as file:
        del file[key]


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: remove(path, 'data'), 'no demonstration in /data'),
        (lambda path: remove(path, 'data/demo_2/obs/ee_pos'), 'no /data/demo_2/obs/ee_pos'),
        (lambda path: path.write_bytes(b'no'), 'not a readable HDF5 file'),
    ],
    ids=['empty', 'pose', 'file'],
)
def test_a_damaged_file_is_one_line(tmp_path, damage, message):
    path = write(tmp_path / NAME)
    damage(path)
    with pytest.raises(HbvlaError, match=f'^{path}: {message}'):
        open_recordings(path, NEEDS)


def test_what_does_not_fit_is_one_line(tmp_path):
    path = write(tmp_path / NAME)
    with pytest.raises(HbvlaError, match='the policy needs camera full, LIBERO has agentview_i'):
        open_recordings(path, Needs(('full',), 8, 'libero'))
    with pytest.raises(HbvlaError, match='has 8 values, the policy takes 7'):
        open_recordings(path, Needs(('agentview_image',), 7, 'libero'))
    remove(path, 'data/demo_10/obs/eye_in_hand_rgb')
    *_, recording = open_recordings(path, NEEDS)
    with pytest.raises(HbvlaError, match='no /data/demo_10/obs/eye_in_hand_rgb'):
        recording.observation(0)
