# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whole runs on a few synthetic demonstrations."""

import json

import numpy as np
import pytest
import simplejpeg

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.dataset import load_demonstrations
from hbvla_ros.training.options import ALOHA_SIM, NetworkSize, TrainingOptions
from hbvla_ros.training.run import train_policy
from hbvla_ros.vla.checkpoint import Checkpoint

SIZE = NetworkSize(tower_width=32, tower_depth=2, hidden=32, intermediate=48, layers=2, heads=2)


def write_episode(folder, seed, steps=6):
    random = np.random.default_rng(seed)
    arrays = {
        'proprioception': random.normal(size=(steps, 14)).astype(np.float32),
        'chunks': random.normal(size=(steps, 16, 14)).astype(np.float32),
        'auxiliary': random.normal(size=(steps, 3)).astype(np.float32),
        'auxiliary_names': np.array(['cube_x', 'target_is_cube', 'left_tip_x']),
        'instruction': np.array(f'put the {("red", "blue")[seed % 2]} cube into the bucket'),
        'seed': np.array(seed),
        'success': np.array(True),
    }
    for camera in ALOHA_SIM.cameras:
        frames = random.integers(0, 256, (steps, 32, 32, 3)).astype(np.uint8)
        data = [simplejpeg.encode_jpeg(f, 95, colorsubsampling='420') for f in frames]
        arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(data), np.uint8)
        arrays[f'offset_{camera}'] = np.cumsum([0, *map(len, data)])
    folder.mkdir(exist_ok=True)
    np.savez(folder / f'episode_{seed}.npz', **arrays)


@pytest.fixture
def folders(tmp_path):
    for seed in range(4):
        write_episode(tmp_path / 'train', seed)
    for seed in (100, 101):
        write_episode(tmp_path / 'validation', seed)
    return tmp_path / 'train', tmp_path / 'validation', tmp_path / 'out' / 'model'


def run(folders, steps=6, until=None, resume=False):
    options = TrainingOptions(steps=steps, batch=4, warm_up=2, compile=False)
    return train_policy(*folders, SIZE, options, lambda *_: None, resume, until)


def weights(folder):
    network = Checkpoint.open(folder, ALOHA_SIM).load_network()
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_run_writes_a_folder_the_loader_reads(folders):
    summary = run(folders)
    assert summary['steps'] == 6 and summary['training_seeds'] == [0, 3]
    assert np.isfinite(summary['validation_action_l1'])
    written = json.loads((folders[2] / 'training.json').read_text())
    assert written['frames'] == 24 and written['demonstrations_sha256']
    assert weights(folders[2])


def test_resumed_run_equals_an_uninterrupted_one(folders, tmp_path):
    run(folders, until=6)
    whole = weights(folders[2])
    parted = (*folders[:2], tmp_path / 'parted' / 'model')
    run(parted, until=3)
    with pytest.raises(HbvlaError, match='holds a checkpoint already'):
        run(parted, until=6)
    run(parted, until=6, resume=True)
    assert not list(parted[2].glob('*--3_*'))
    for name, value in weights(parted[2]).items():
        assert np.array_equal(value, whole[name]), name


def test_shared_seed_is_refused(folders):
    write_episode(folders[1], 3)
    with pytest.raises(HbvlaError, match='seed 3 is also in'):
        run(folders)


def test_empty_folder_missing_camera_and_foreign_file(tmp_path):
    with pytest.raises(HbvlaError, match='no episode_'):
        load_demonstrations(tmp_path, ALOHA_SIM.cameras, 10, 96)
    write_episode(tmp_path / 'a', 0)
    with pytest.raises(HbvlaError, match='camera cam_low is missing'):
        load_demonstrations(tmp_path / 'a', ['cam_low'], 10, 96)
    with pytest.raises(HbvlaError, match='16 rows'):
        load_demonstrations(tmp_path / 'a', ALOHA_SIM.cameras, 25, 96)
    (tmp_path / 'a' / 'episode_1.npz').write_bytes(b'nonsense')
    with pytest.raises(HbvlaError, match='episode_1.npz'):
        load_demonstrations(tmp_path / 'a', ALOHA_SIM.cameras, 10, 96)


def test_resume_with_other_options_is_refused(folders):
    run(folders, until=2)
    options = TrainingOptions(steps=6, batch=8, warm_up=2, compile=False)
    with pytest.raises(HbvlaError, match='made with batch 4, not 8'):
        train_policy(*folders, SIZE, options, lambda *_: None, resume=True)


def test_bad_numbers_on_the_command_line(capsys):
    from hbvla_ros.cli.main import main

    folders = ['--data', 'a', '--validation', 'b', '--out', 'c']
    for option, value in (('--until', '0'), ('--batch', '0'), ('--seed', '-1')):
        assert main(['train', *folders, option, value]) == 2
        assert f'{option} {value}' in capsys.readouterr().err
    assert main(['train', *folders]) == 2
    assert 'no episode_*.npz' in capsys.readouterr().err
