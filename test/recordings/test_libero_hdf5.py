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


def test_all_demonstrations_of_a_task_in_the_order_they_were_made(tmp_path):
    path = write(tmp_path / NAME)
    (recording,) = open_recordings(path, NEEDS)
    assert recording.kind == 'libero_hdf5' and len(recording) == 6
    assert recording.instruction == (
        'pick up the black bowl next to the plate and place it on the plate'
    )
    order = [(demo, frame) for demo in LENGTHS for frame in range(LENGTHS[demo])]
    with h5py.File(path) as file:
        for index, (demo, frame) in enumerate(order):
            seen = file[f'data/{demo}/obs']
            observation = recording.observation(index)
            np.testing.assert_array_equal(
                observation.images['agentview_image'], seen['agentview_rgb'][frame]
            )
            np.testing.assert_array_equal(
                observation.images['robot0_eye_in_hand_image'], seen['eye_in_hand_rgb'][frame]
            )
            expected = [*seen['ee_pos'][frame], *seen['ee_ori'][frame],
                        *seen['gripper_states'][frame]]  # fmt: skip
            np.testing.assert_array_equal(observation.proprioception, expected)
            assert observation.instruction == recording.instruction
    recording.close()
    assert len(recording.digest()) == 64


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
    (recording,) = open_recordings(write(tmp_path / name), NEEDS)
    assert recording.instruction == text


def test_under_another_name_the_file_or_the_user_says_it(tmp_path):
    told = {'problem_info': json.dumps({'language_instruction': 'open the drawer '})}
    (recording,) = open_recordings(write(tmp_path / 'a.hdf5', attributes=told), NEEDS)
    assert recording.instruction == 'open the drawer'
    path = write(tmp_path / 'b.hdf5')
    (recording,) = open_recordings(path, NEEDS, Given(instruction='close it'))
    assert recording.instruction == 'close it'
    with pytest.raises(HbvlaError, match=f'^{path}: does not say its task; give it with'):
        open_recordings(path, NEEDS)


def test_a_folder_has_one_recording_a_task(tmp_path):
    for name in ('a_demo.hdf5', 'b_demo.hdf5'):
        write(tmp_path / name)
    assert [one.instruction for one in open_recordings(tmp_path, NEEDS)] == ['a', 'b']


def test_a_policy_without_wrist_camera_and_proprioception(tmp_path):
    needs = Needs(('agentview_image',), 0, 'libero')
    (recording,) = open_recordings(write(tmp_path / NAME), needs)
    assert list(recording.observation(5).images) == ['agentview_image']


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
    (recording,) = open_recordings(path, NEEDS)
    with pytest.raises(HbvlaError, match='no /data/demo_10/obs/eye_in_hand_rgb'):
        recording.observation(4)
