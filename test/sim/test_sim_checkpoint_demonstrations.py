# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstrations that a checkpoint drives: what it sees and does, the command, what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from hbvla_ros.cli import demos
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import RunningEpisode, run_episode
from hbvla_ros.evaluation.policy_actor import PolicyActor, PolicyActors
from hbvla_ros.policy import Policy
from hbvla_ros.sim.dataset import generate
from hbvla_ros.sim.dataset_manifest import DatasetManifest, episode_path
from hbvla_ros.sim.policy_demonstrations import record_policy_episode
from hbvla_ros.sim.simulation import AlohaSimulation

SEED = 2_000_040
ROWS = 5
SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}


@pytest.fixture
def checkpoint(make_tiny_checkpoint) -> Path:
    return make_tiny_checkpoint('random', platform=SIMULATED)


def parsed(*words):
    parser = argparse.ArgumentParser()
    demos.add_parser(parser.add_subparsers())
    return parser.parse_args(['demos', *map(str, words)])


def test_the_policy_sees_what_it_sees_in_the_evaluation(checkpoint):
    policy = Policy.load(checkpoint)
    seen = []

    class Noting:
        platform, generator = policy.platform, policy.generator

        def act(self, observation):
            seen.append(observation)
            return policy.act(observation)

    simulation = AlohaSimulation(128)
    episode = RunningEpisode(simulation, SEED, 'sequence')
    expected = episode.observe(policy.platform.cameras)
    rows = PolicyActor(Noting()).chunk(simulation, simulation.render)
    simulation.close()
    (observation,) = seen
    assert (observation.instruction, observation.stamp) == (expected.instruction, expected.stamp)
    assert np.array_equal(observation.proprioception, expected.proprioception)
    assert list(observation.images) == list(expected.images)
    for name, image in expected.images.items():
        assert np.array_equal(observation.images[name], image)
    assert np.array_equal(rows, policy.act(expected).actions[:ROWS])


def test_alone_it_does_what_it_does_in_the_evaluation(checkpoint, short, watched, seed_of):
    seed = seed_of(alone=True)
    policy = Policy.load(checkpoint)
    simulation = AlohaSimulation(128)
    trace = run_episode(policy, simulation, seed, max_steps=30).trace
    watched.clear()
    record_policy_episode(simulation, seed, PolicyActor(policy), images=False)
    simulation.close()
    assert np.array_equal(watched[1:31], trace.commands)


def test_the_command_records_the_same_here_and_in_a_process_of_its_own(
    checkpoint, tmp_path, capsys, seed_of
):
    identity = Policy.load(checkpoint).checkpoint
    seed = seed_of(alone=False)
    contents = []
    # The second call for the folder has nothing left to record and says the same.
    for name, workers in (('one', 1), ('one', 1), ('two', 2)):
        arguments = parsed(
            '--out', tmp_path / name, '--episodes', '1', '--workers', workers,
            '--seed', seed, '--camera-size', '16', '--policy', checkpoint,
        )  # fmt: skip
        assert arguments.run(arguments) == 0
        said = capsys.readouterr().out
        assert f'{tmp_path / name}: pick_place, 1 episodes' in said
        assert f'driven by {identity}; 0 of the 1 asked for succeeded' in said
        assert 'discarded' not in said
        assert DatasetManifest.read(tmp_path / name).policy == identity
        contents.append(np.load(episode_path(tmp_path / name, seed)))
    assert contents[0].files == contents[2].files
    for key in contents[0].files:
        assert np.array_equal(contents[0][key], contents[2][key]), key


@pytest.mark.parametrize(
    'platform, message',
    [
        ({'robot': 'aloha'}, "trained for robot 'aloha'"),
        ({'chunk': 3}, 'execute 5: must be 1 to 3'),
        ({'step': 0.02}, 'rows 0.02 s apart, those of demonstrations are 0.04 s'),
    ],
)
def test_a_policy_that_does_not_fit_is_one_line(make_tiny_checkpoint, tmp_path, platform, message):
    folder = make_tiny_checkpoint('odd', platform=SIMULATED | platform)
    arguments = parsed('--out', tmp_path / 'set', '--episodes', '1', '--policy', folder)
    with pytest.raises(HbvlaError, match=message):
        arguments.run(arguments)
    assert not (tmp_path / 'set').exists()


def test_a_folder_that_is_none_is_one_line(tmp_path):
    arguments = parsed('--out', tmp_path / 'set', '--episodes', '1', '--policy', tmp_path / 'none')
    with pytest.raises(HbvlaError, match='none: no such checkpoint folder'):
        arguments.run(arguments)


def test_a_checkpoint_that_changes_meanwhile_is_one_line(checkpoint, tmp_path):
    actors = PolicyActors.of(checkpoint, 25.0)
    config = checkpoint / 'config.json'
    config.write_text(config.read_text() + '\n')
    with pytest.raises(HbvlaError, match='random: has changed since the start'):
        generate(tmp_path / 'set', 1, SEED, workers=2, camera_size=16, actors=actors)


def test_measuring_is_of_the_expert_alone(checkpoint):
    arguments = parsed('--measure', '--episodes', '1', '--policy', checkpoint)
    with pytest.raises(HbvlaError, match='leave out --policy'):
        arguments.run(arguments)
