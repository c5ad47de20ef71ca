# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from hbvla_ros.cli import demos
from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.dataset import generate
from hbvla_ros.sim.dataset_manifest import DatasetManifest, EpisodeResult, episode_path
from hbvla_ros.sim.measurement import measure_expert
from hbvla_ros.sim.tasks.registry import find_task, task_names

SEED = 2_000_040


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'set'
    generate(folder, episodes=2, seed=SEED, camera_size=32)
    return folder


def parsed(*words):
    parser = argparse.ArgumentParser()
    demos.add_parser(parser.add_subparsers())
    return parser.parse_args(['demos', *words])


def test_manifest_counts_what_is_there(folder):
    manifest = DatasetManifest.read(folder)
    kept = {int(seed) for seed in manifest.episodes}
    assert kept | set(manifest.failed) == {SEED, SEED + 1}
    frames = sum(len(np.load(episode_path(folder, seed))['chunks']) for seed in kept)
    content = json.loads((folder / 'dataset.json').read_text())
    assert manifest.frames == content['frames'] == frames > 20
    assert content['success_rate'] == len(kept) / 2
    assert content['chunk'] == 16 and content['camera_size'] == 32


def test_going_on_keeps_earlier_episodes(folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in folder.glob('episode_*.npz')}
    results = []
    manifest = generate(folder, 3, SEED, camera_size=32, progress=results.append)
    assert [result.seed for result in results] == [SEED, SEED + 1, SEED + 2]
    assert len(manifest.episodes) + len(manifest.failed) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_episode_not_yet_in_the_manifest_is_taken_over(folder):
    manifest = DatasetManifest.read(folder)
    seed, frames = next(iter(manifest.episodes.items()))
    manifest.episodes.pop(seed)
    manifest.write(folder)
    after = generate(folder, 1, int(seed), camera_size=32)
    assert after.episodes[seed] == frames


def test_workers_give_the_same_episodes(folder, tmp_path):
    manifest = generate(tmp_path, 2, SEED, workers=2, camera_size=32)
    for seed in manifest.episodes:
        one, two = (np.load(episode_path(place, int(seed))) for place in (folder, tmp_path))
        for key in one.files:
            assert np.array_equal(one[key], two[key]), key


def test_no_temporary_files_are_left(folder):
    assert not [path for path in folder.iterdir() if path.name.startswith('.')]


def test_other_settings_are_refused(folder):
    with pytest.raises(HbvlaError, match='camera_size differs'):
        generate(folder, 1, SEED, camera_size=64)


@pytest.mark.parametrize('seed, message', [(3_000_000, 'evaluation'), (5, 'other')])
def test_seeds_of_another_purpose_are_refused(tmp_path, seed, message):
    with pytest.raises(HbvlaError, match=f'reserved for {message}'):
        generate(tmp_path, 1, seed)


def test_seeds_that_run_over_the_end_are_refused(tmp_path):
    with pytest.raises(HbvlaError, match='not validation'):
        generate(tmp_path, 2, 2_099_999)


def test_another_task_in_the_same_folder_is_refused(folder):
    with pytest.raises(HbvlaError, match=r'task differs .*\(pick_place, not sequence\)'):
        generate(folder, 1, SEED, camera_size=32, task='sequence')


def test_unknown_task_names_the_known_ones(tmp_path):
    with pytest.raises(HbvlaError, match="task 'juggle': unknown; .*pick_place, sequence"):
        generate(tmp_path / 'a', 1, SEED, task='juggle')
    assert not (tmp_path / 'a').exists()


def test_folder_of_the_first_format_is_read_but_not_added_to(folder, tmp_path):
    content = json.loads((folder / 'dataset.json').read_text())
    content['format_version'] = 1
    (tmp_path / 'dataset.json').write_text(json.dumps(content))
    assert DatasetManifest.read(tmp_path).frames == content['frames']
    with pytest.raises(HbvlaError, match=r'format_version differs .*\(1, not 2\)'):
        generate(tmp_path, 1, SEED, camera_size=32)


def test_counts_must_be_positive(tmp_path):
    with pytest.raises(HbvlaError, match='at least 1'):
        generate(tmp_path, 0, SEED)


@pytest.mark.parametrize('text', ['{', '[]', '{"format_version": 9}', '{"format_version": 1}'])
def test_bad_manifest_is_one_line(tmp_path, text):
    (tmp_path / 'dataset.json').write_text(text)
    with pytest.raises(HbvlaError, match='dataset.json: '):
        DatasetManifest.read(tmp_path)


def test_missing_manifest_says_how_to_make_it(tmp_path):
    with pytest.raises(HbvlaError, match='hbvla demos'):
        DatasetManifest.read(tmp_path)


def test_failed_seeds_are_noted_once():
    manifest = DatasetManifest('t', [], 1, 25.0, 3, 16, [])
    for _ in range(2):
        manifest.add(EpisodeResult(7, False, 0))
    assert manifest.failed == [7] and manifest.success_rate == 0.0


def test_command_reports_what_it_made(tmp_path, capsys):
    arguments = parsed(
        '--out', str(tmp_path / 'a'), '--episodes', '1', '--seed', str(SEED), '--camera-size', '16'
    )
    assert arguments.run(arguments) == 0
    assert '1 episodes' in capsys.readouterr().out
    assert episode_path(tmp_path / 'a', SEED).exists()


def test_several_tasks_get_a_folder_each(tmp_path, capsys):
    arguments = parsed(
        '--out', str(tmp_path), '--episodes', '1', '--seed', str(SEED), '--camera-size', '16',
        '--task', 'sequence', 'pick_place',
    )  # fmt: skip
    assert arguments.run(arguments) == 0
    assert f'{tmp_path / "sequence"}: sequence, 1 episodes' in capsys.readouterr().out
    for name in ('sequence', 'pick_place'):
        assert DatasetManifest.read(tmp_path / name).task == name
        episode = np.load(episode_path(tmp_path / name, SEED))
        assert str(episode['task']) == name
        assert str(episode['instruction']) in find_task(name).instructions


def test_where_tasks_go(tmp_path):
    assert demos.task_folders(tmp_path, ['sequence']) == {'sequence': tmp_path}
    assert demos.task_folders(tmp_path, ['all']) == {n: tmp_path / n for n in task_names()}
    with pytest.raises(HbvlaError, match='sequence: named twice'):
        demos.task_folders(tmp_path, ['sequence', 'sequence'])
    with pytest.raises(HbvlaError, match="task 'all': unknown"):
        demos.task_folders(tmp_path, ['all', 'sequence'])


def test_measuring_says_how_often_the_expert_succeeds(capsys):
    arguments = parsed('--measure', '--task', 'pick_place', 'sequence', '--episodes', '2')
    assert arguments.run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if 's on average' in line]
    assert [line.split(':')[0] for line in said] == [
        'pick_place, undisturbed', 'pick_place, disturbed', 'sequence, undisturbed',
        'sequence, disturbed',
    ]  # fmt: skip
    assert all('100' in line for line in said[::2])


def test_measured_outcomes_do_not_depend_on_workers_or_order():
    seeds = range(SEED, SEED + 4)
    alone = list(measure_expert('pick_place', seeds, disturbed=True))
    assert list(measure_expert('pick_place', seeds, True, workers=2)) == alone
    assert list(measure_expert('pick_place', seeds[::-1], True)) == alone[::-1]
    with pytest.raises(HbvlaError, match='at least 1'):
        list(measure_expert('pick_place', []))


@pytest.mark.parametrize(
    'words, message',
    [(['--measure', '--out', 'x'], 'leave out --out'), ([], '--out is missing')],
)
def test_out_goes_with_recording_alone(words, message):
    arguments = parsed('--episodes', '1', *words)
    with pytest.raises(HbvlaError, match=message):
        arguments.run(arguments)


def test_first_seed_defaults_to_the_demonstrations():
    assert parsed('--out', 'x', '--episodes', '1').seed == 1_000_000
