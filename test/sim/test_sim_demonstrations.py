# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from hbvla_ros.sim import scene
from hbvla_ros.sim.auxiliary import AUXILIARY_NAMES, auxiliary_targets
from hbvla_ros.sim.demonstrations import expert_chunk, record_episode, roll_out
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.perturbation import CommandPerturbation
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.registry import find_task, task_names

SEED = 2_000_000


def record_without_images(simulation, seed):
    return record_episode(simulation, seed, images=False)


@pytest.fixture(scope='module')
def simulation():
    simulation = AlohaSimulation(camera_size=48)
    yield simulation
    simulation.close()


@pytest.fixture(scope='module')
def written(simulation, tmp_path_factory):
    episode = record_episode(simulation, SEED)
    path = tmp_path_factory.mktemp('demos') / 'episode.npz'
    episode.write(path)
    with np.load(path, allow_pickle=False) as content:
        return episode, dict(content)


def test_chunk_is_what_the_expert_then_does(simulation):
    simulation.reset(SEED)
    expert = PickPlaceExpert(simulation)
    for _ in range(25):
        simulation.command(expert.command())
        simulation.step()
    before = simulation.data.qpos.copy()
    chunk = expert_chunk(simulation, expert)
    assert np.array_equal(simulation.data.qpos, before)
    done = []
    for _ in range(len(chunk)):
        done.append(expert.command())
        simulation.command(done[-1])
        simulation.step()
    assert np.array_equal(chunk, done)


def test_labelling_does_not_change_the_rollout(simulation):
    ends = []
    for record in (roll_out, record_without_images):
        record(simulation, SEED)
        ends.append(simulation.save_state().physics)
    assert np.array_equal(*ends)


def test_written_episode_has_the_promised_arrays(written):
    episode, content = written
    count = len(episode.chunks)
    assert content['chunks'].shape == (count, 16, 14)
    assert content['proprioception'].shape == (count, 14)
    assert content['auxiliary'].shape == (count, len(AUXILIARY_NAMES))
    for name in ('chunks', 'proprioception', 'auxiliary'):
        assert content[name].dtype == np.float32 and np.isfinite(content[name]).all()
    assert str(content['instruction']) == episode.instruction
    assert content['instruction'].shape == () and int(content['seed']) == SEED
    assert bool(content['success']) and str(content['task']) == 'pick_place'
    known = dict(zip(AUXILIARY_NAMES, content['auxiliary_known'].all(axis=0), strict=True))
    assert known['bucket_x'] and known['target_is_red_cube'] and known['target_from_left_tip_z']


def test_written_images_decode(written):
    _, content = written
    count = len(content['chunks'])
    for camera in scene.CAMERAS:
        offsets = content[f'offset_{camera}']
        data = content[f'jpeg_{camera}']
        assert offsets.shape == (count + 1,) and offsets[0] == 0 and offsets[-1] == len(data)
        for i in (0, count - 1):
            image = simplejpeg.decode_jpeg(data[offsets[i] : offsets[i + 1]].tobytes())
            assert image.shape == (48, 48, 3)


def test_auxiliary_targets_fit_together(written):
    _, content = written
    column = {name: i for i, name in enumerate(AUXILIARY_NAMES)}
    values = content['auxiliary']
    target = [n for n in ('red_cube', 'green_cylinder', 'blue_block')
              if values[0, column[f'target_is_{n}']] == 1]  # fmt: skip
    assert len(target) == 1 and target[0].replace('_', ' ') in str(content['instruction'])
    for side in ('left', 'right'):
        for axis in 'xyz':
            expected = (
                values[:, column[f'{target[0]}_{axis}']] - values[:, column[f'{side}_tip_{axis}']]
            )
            got = values[:, column[f'target_from_{side}_tip_{axis}']]
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_what_a_scene_does_not_hold_is_unknown(simulation):
    simulation.reset(SEED)
    values = dict(zip(AUXILIARY_NAMES, auxiliary_targets(simulation), strict=True))
    there = {prop.name for prop in simulation.task.props}
    for task in map(find_task, task_names()):
        for prop in task.props:
            assert np.isfinite(values[f'{prop.name}_x']) == (prop.name in there)
            if prop.name != 'bucket':
                assert values[f'target_is_{prop.name}'] in (0.0, 1.0)
    goal = values['left_tip_x'] + values['target_goal_from_left_tip_x']
    assert goal == pytest.approx(values['bucket_x'])


def test_episode_ends_at_rest_with_labels_that_say_so(written):
    _, content = written
    # The arm may still be disturbed in the last frame; the label leads it back to rest.
    assert np.abs(content['chunks'][-1] - START_ACTION).max() < 0.3
    assert np.abs(content['chunks'][-1, -1] - START_ACTION).max() < 0.03


def test_same_seed_gives_the_same_episode(simulation):
    one = record_episode(simulation, SEED + 1, images=False)
    record_episode(simulation, SEED + 2, images=False)
    two = record_episode(simulation, SEED + 1, images=False)
    assert np.array_equal(one.chunks, two.chunks)
    assert np.array_equal(one.proprioception, two.proprioception)


def test_most_disturbed_episodes_still_succeed(simulation):
    outcomes = []
    for seed in seed_range('validation', 20, offset=20):
        roll_out(simulation, seed)
        outcomes.append(simulation.success())
    assert sum(outcomes) >= 18


def test_disturbances_are_of_every_kind_and_bounded():
    command, measured = START_ACTION.copy(), START_ACTION + 0.05
    quiet = grippers = holds = 0
    largest = 0.0
    for seed in range(60):
        noise = CommandPerturbation(np.random.default_rng(seed))
        rows = np.array([noise.apply(command, measured) for _ in range(100)])
        quiet += bool((rows == command).all())
        grippers += bool((rows[:, [6, 13]] < 0.5).any())
        holds += bool((np.abs(rows[:, :6] - measured[:6]).max(axis=1) < 0.01).any())
        largest = max(largest, np.abs(rows[:, :6] - command[:6]).max())
    assert 2 <= quiet <= 15 and grippers >= 20 and holds >= 10
    assert 0.1 < largest < 0.7


@pytest.mark.parametrize('seed', [1, 4, 5])
def test_disturbance_is_smooth(seed):
    noise = CommandPerturbation(np.random.default_rng(seed))
    still = np.zeros(14)
    rows = np.array([noise.apply(still, still) for _ in range(300)])[:, :6]
    assert np.abs(rows).max() > 0.05
    assert np.abs(np.diff(rows, axis=0)).max() < 0.6 * np.abs(rows).max()
