# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whole runs on a few synthetic demonstrations."""

import json
from dataclasses import replace

import numpy as np
import pytest
import simplejpeg
import torch
from tokenizers import Tokenizer

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.auxiliary import _masked_loss, column_statistics
from hbvla_ros.training.dataset import dataset_statistics, load_demonstrations
from hbvla_ros.training.loop import Trainer
from hbvla_ros.training.options import ALOHA_SIM, NetworkSize, TrainingOptions, network_config
from hbvla_ros.training.run import train_policy
from hbvla_ros.training.tensors import to_tensors
from hbvla_ros.training.tokenizer import build_tokenizer
from hbvla_ros.training.warm_start import start_from
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.tokens import PromptTokenizer, build_prompt

SIZE = NetworkSize(tower_width=32, tower_depth=2, hidden=32, intermediate=48, layers=2, heads=2)


def write_episode(folder, seed, steps=6, task=None, instruction=None):
    """Of the first format without a task, else of the present one with columns of its own."""
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
    if task is not None:
        arrays['task'] = np.array(task)
        arrays['instruction'] = np.array(instruction)
        arrays['auxiliary_names'] = np.array(['peg_x', 'target_is_cube', 'left_tip_x'])
        arrays['auxiliary_known'] = np.tile([True, True, False], (steps, 1))
    for camera in ALOHA_SIM.cameras:
        frames = random.integers(0, 256, (steps, 32, 32, 3)).astype(np.uint8)
        data = [simplejpeg.encode_jpeg(f, 95, colorsubsampling='420') for f in frames]
        arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(data), np.uint8)
        arrays[f'offset_{camera}'] = np.cumsum([0, *map(len, data)])
    folder.mkdir(exist_ok=True, parents=True)
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
    data, validation, out = folders
    return train_policy([data], [validation], out, SIZE, options, lambda *_: None, resume, until)


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


def test_resumed_at_its_end_a_run_only_writes_the_checkpoint(folders):
    summary = run(folders, until=3)
    again = run(folders, until=3, resume=True)
    assert again == summary and again['validation_action_l1'] > 0


def test_shared_seed_is_refused(folders):
    write_episode(folders[1], 3)
    with pytest.raises(HbvlaError, match='seed 3 is also in'):
        run(folders)


def test_empty_folder_missing_camera_and_foreign_file(tmp_path):
    with pytest.raises(HbvlaError, match='no episode_'):
        load_demonstrations([tmp_path], ALOHA_SIM.cameras, 10, 96)
    write_episode(tmp_path / 'a', 0)
    with pytest.raises(HbvlaError, match='camera cam_low is missing'):
        load_demonstrations([tmp_path / 'a'], ['cam_low'], 10, 96)
    with pytest.raises(HbvlaError, match='16 rows'):
        load_demonstrations([tmp_path / 'a'], ALOHA_SIM.cameras, 25, 96)
    (tmp_path / 'a' / 'episode_1.npz').write_bytes(b'nonsense')
    with pytest.raises(HbvlaError, match='episode_1.npz'):
        load_demonstrations([tmp_path / 'a'], ALOHA_SIM.cameras, 10, 96)


def test_resume_with_other_options_is_refused(folders):
    run(folders, until=2)
    options = TrainingOptions(steps=6, batch=8, warm_up=2, compile=False)
    with pytest.raises(HbvlaError, match='made with batch 4, not 8'):
        train_policy(
            [folders[0]], [folders[1]], folders[2], SIZE, options, lambda *_: None, resume=True
        )


def test_bad_numbers_on_the_command_line(capsys):
    from hbvla_ros.cli.main import main

    folders = ['--data', 'a', '--validation', 'b', '--out', 'c']
    for option, value in (('--until', '0'), ('--batch', '0'), ('--seed', '-1')):
        assert main(['train', *folders, option, value]) == 2
        assert f'{option} {value}' in capsys.readouterr().err
    assert main(['train', *folders]) == 2
    assert 'no episode_*.npz' in capsys.readouterr().err


LONG = 'put the red peg into the socket and then go home'


@pytest.fixture
def two_tasks(tmp_path):
    """Folders of two tasks: one old and small, one new with longer prompts and more frames."""
    for name, first in (('train', 0), ('validation', 100)):
        for seed in range(first, first + 2):
            write_episode(tmp_path / name / 'pick_place', seed, steps=4)
            write_episode(tmp_path / name / 'insertion', seed, 12, 'insertion', LONG)
    return tmp_path


def load(*folders, names=None):
    return load_demonstrations(folders, ALOHA_SIM.cameras, 10, 32, names)


def test_folders_of_several_tasks_are_joined_by_column_name(two_tasks):
    joined = load(two_tasks / 'train')
    assert joined.tasks == ('insertion', 'pick_place') and joined.task_episodes == (2, 2)
    assert joined.auxiliary_names == ('peg_x', 'target_is_cube', 'left_tip_x', 'cube_x')
    peg, old = (
        joined.auxiliary_known[joined.task_index == 0],
        joined.auxiliary_known[joined.task_index == 1],
    )
    assert (peg == [True, True, False, False]).all() and (old == [False, True, True, True]).all()
    alone = load(two_tasks / 'train' / 'pick_place')
    np.testing.assert_array_equal(
        joined.auxiliary[joined.task_index == 1][:, [3, 1, 2]], alone.auxiliary
    )
    assert len(joined) == 32 and LONG in joined.instructions
    chosen = load(two_tasks / 'train', names=('left_tip_x', 'cube_x'))
    assert chosen.auxiliary.shape == (32, 2)


def test_folders_given_one_by_one_are_the_same(two_tasks):
    parts = [two_tasks / 'train' / name for name in ('insertion', 'pick_place')]
    assert load(*parts).digest == load(two_tasks / 'train').digest
    with pytest.raises(HbvlaError, match='pick_place: given twice'):
        load(two_tasks / 'train', parts[1])


def test_training_on_several_tasks_reports_each(two_tasks):
    out = two_tasks / 'out' / 'model'
    options = TrainingOptions(steps=4, batch=5, warm_up=2, compile=False)
    lines = []
    summary = train_policy(
        [two_tasks / 'train'], [two_tasks / 'validation'], out, SIZE, options,
        lambda *line: lines.append(line),
    )  # fmt: skip
    errors = [task['validation_action_l1'] for task in summary['tasks'].values()]
    assert list(summary['tasks']) == ['insertion', 'pick_place']
    assert [task['frames'] for task in summary['tasks'].values()] == [24, 8]
    assert summary['validation_action_l1'] == pytest.approx(np.mean(errors))
    assert lines[-1][2]['insertion_action_l1'] == errors[0]
    statistics = json.loads((out / 'dataset_statistics.json').read_text())
    assert list(statistics) == ['aloha_sim']
    policy = Checkpoint.open(out, ALOHA_SIM)
    assert policy.load_network() is not None


def test_batches_hold_as_many_frames_of_each_task(two_tasks):
    joined = load(two_tasks / 'train')
    statistics = dataset_statistics(joined, 'key')
    tokenizer = build_tokenizer(map(build_prompt, joined.instructions), 448)
    tensors = to_tensors(
        joined, Normaliser(statistics, ALOHA_SIM), PromptTokenizer(tokenizer, 1, 3, 512)
    )
    options = TrainingOptions(steps=4, batch=7, compile=False)
    network = OpenVLANetwork(network_config(SIZE), ALOHA_SIM)
    pieces = (joined.tasks, joined.auxiliary_names, torch.ones(2, 2, 3), options, two_tasks)
    trainer = Trainer(network, tensors, tensors, *pieces)
    index = trainer._draw()
    assert torch.bincount(tensors.task[index]).tolist() == [3, 4]
    rows = tensors.rows(index)
    assert len(rows['input_ids']) == len(rows['frames']) == 7
    assert rows['padded'].unique().tolist() == [0, 4]
    with pytest.raises(HbvlaError, match='--batch 1: no frame of '):
        Trainer(network, tensors, tensors, *pieces[:3], TrainingOptions(batch=1), two_tasks)


def test_resumed_run_keeps_its_words(two_tasks):
    """Further demonstrations bring further sentences; a word must keep its row."""
    folders = two_tasks / 'train' / 'insertion', two_tasks / 'validation' / 'insertion'
    out = two_tasks / 'out' / 'model'
    run((*folders, out), until=2)
    before = (out / 'tokenizer.json').read_bytes()
    write_episode(folders[0], 2, 6, 'insertion', 'quickly join what fits together')
    run((*folders, out), resume=True)
    assert (out / 'tokenizer.json').read_bytes() == before


def test_run_starts_from_another_policy(two_tasks, tmp_path):
    options = TrainingOptions(steps=2, batch=4, warm_up=2, compile=False)
    first, second = tmp_path / 'first', tmp_path / 'second'
    pick_place = [two_tasks / 'train' / 'pick_place'], [two_tasks / 'validation' / 'pick_place']
    train_policy(*pick_place, first, SIZE, options, lambda *_: None)
    network = OpenVLANetwork(network_config(SIZE), ALOHA_SIM)
    tokenizer = build_tokenizer(['insert the red peg into the socket'], 448)
    identity = start_from(first, network, tokenizer)
    old = weights(first)
    words = Tokenizer.from_file(str(first / 'tokenizer.json')).get_vocab()
    name = 'language_model.model.embed_tokens.weight'
    found = network.state_dict()
    for key in old.keys() - {name}:
        assert np.array_equal(found[key].numpy(), old[key]), key
    rows = tokenizer.get_vocab()
    for word in ('red', '<s>', 'q'):
        stored = [key for key in words if key.endswith(word)][0]
        mine = [key for key in rows if key == stored][0]
        assert np.array_equal(found[name][rows[mine]].numpy(), old[name][words[stored]])
    both = [two_tasks / 'train'], [two_tasks / 'validation']
    summary = train_policy(*both, second, SIZE, options, lambda *_: None, start=first)
    assert summary['started_from'] == identity
    other = OpenVLANetwork(network_config(replace(SIZE, layers=3)), ALOHA_SIM)
    with pytest.raises(HbvlaError, match='model.layers.2'):
        start_from(first, other, tokenizer)
    wide = OpenVLANetwork(network_config(replace(SIZE, hidden=64, intermediate=96)), ALOHA_SIM)
    with pytest.raises(HbvlaError, match='--hidden as that policy had'):
        start_from(first, wide, tokenizer)


def test_unknown_columns_do_not_count():
    columns = torch.tensor([[1.0, 5.0], [3.0, 100.0], [5.0, 7.0]])
    known = torch.tensor([[True, True], [True, False], [True, True]])
    mean, deviation = column_statistics(columns, known)
    assert mean.tolist() == [3.0, 6.0]
    assert deviation.tolist() == pytest.approx([2.0, 2**0.5])
    nothing = column_statistics(columns, torch.zeros(3, 2, dtype=torch.bool))
    assert nothing[0].tolist() == [0.0, 0.0] and nothing[1].isfinite().all()


def test_loss_ignores_what_is_unknown():
    predicted, wanted = torch.zeros(2, 2), torch.tensor([[0.0, 9.0], [2.0, 9.0]])
    known = torch.tensor([[True, False], [True, False]])
    assert _masked_loss(predicted, wanted, known).item() == pytest.approx(0.75)
    assert _masked_loss(predicted, wanted, ~known & known).item() == 0.0


def test_task_without_validation_is_refused(two_tasks):
    folders = two_tasks / 'train', two_tasks / 'validation' / 'pick_place', two_tasks / 'out'
    with pytest.raises(HbvlaError, match='task insertion: in --data, but not in --validation'):
        run(folders)
