# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""LIBERO's adapter against a stand-in that has LIBERO's interface and nothing else of it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.suites import libero
from hbvla_ros.evaluation.suites.run import evaluate_suite
from hbvla_ros.policy import Policy
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.platform import LIBERO
from hbvla_ros.vla.tokens import complete_ids

# torch says that it does what it was told to, once a file of initial states.
pytestmark = pytest.mark.filterwarnings('ignore:Environment variable TORCH_FORCE')

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft' / 'libero_l1'
KEYS = ['libero_spatial_no_noops']


@pytest.fixture(scope='module')
def golden():
    """The reference's inputs and outputs, and our policy with its token ids."""
    with np.load(GOLDEN / 'inputs.npz') as content:
        inputs = dict(content)
    with np.load(GOLDEN / 'expected.npz') as content:
        expected = content['libero_env_actions']
    checkpoint = Checkpoint.open(GOLDEN, LIBERO)
    config = checkpoint.config
    ids = complete_ids(inputs['input_ids'][0].tolist(), config.bos_token_id, config.empty_token_id)
    policy = Policy(
        network=checkpoint.load_network(),
        platform=LIBERO,
        checkpoint='golden@0',
        images=ImagePipeline(LIBERO, Preprocessor.read(GOLDEN)),
        tokenizer=lambda instruction: ids,
        normaliser=Normaliser(checkpoint.statistics, LIBERO),
        generator=torch.Generator(),
    )
    return inputs, expected, policy


def show_golden(stand_in, inputs):
    """Let the simulator show what the reference was given: upside down, as a quaternion."""
    stand_in.images = np.ascontiguousarray(inputs['images_uint8'][:, ::-1, ::-1])
    raw = inputs['proprio_raw']
    angle = np.linalg.norm(raw[3:6])
    axis = raw[3:6] / angle * math.sin(angle / 2)
    stand_in.position, stand_in.gripper = raw[:3], raw[6:]
    stand_in.quaternion = np.append(axis, math.cos(angle / 2))


def suite(task='0', name='libero_spatial'):
    return libero.LiberoSuite(name, task)


def test_the_robot_gets_the_actions_of_the_reference(stand_in, golden):
    """The whole chain at once: rotation, camera order, axis angle, statistics, gripper, order."""
    inputs, expected, policy = golden
    show_golden(stand_in, inputs)
    stand_in.done_after = libero.SETTLING_STEPS + 19
    result = evaluate_suite(policy, suite(), trials=1)
    actions = stand_in.environments[0].actions
    np.testing.assert_array_equal(actions[:10], [[0, 0, 0, 0, 0, 0, -1]] * 10)
    np.testing.assert_allclose(actions[10:], np.vstack([expected] * 3)[:19], atol=1e-4)
    episode = result.episodes[0]
    # 19 rows of three chunks; 20 a second.
    assert (episode.chunks, len(episode.trace)) == (3, 19)
    assert episode.duration == pytest.approx(0.95) and episode.success


@pytest.mark.parametrize(
    'mistake',
    [
        lambda show: setattr(show, 'images', show.images[:, ::-1, ::-1]),
        lambda show: setattr(show, 'images', show.images[::-1]),
        lambda show: setattr(show, 'quaternion', np.roll(show.quaternion, 1)),
        lambda show: setattr(show, 'gripper', show.gripper[::-1]),
    ],
    ids=['image_not_rotated', 'cameras_swapped', 'quaternion_w_first', 'fingers_swapped'],
)
def test_a_wrong_order_would_be_seen(stand_in, golden, mistake):
    inputs, expected, policy = golden
    show_golden(stand_in, inputs)
    mistake(stand_in)
    stand_in.done_after = libero.SETTLING_STEPS + 8
    evaluate_suite(policy, suite(), trials=1)
    difference = np.abs(stand_in.environments[0].actions[10:] - expected).max()
    assert difference > 1e-2


def test_every_episode_starts_from_the_next_initial_state_of_one_seeded_simulator(stand_in, golden):
    inputs, _, policy = golden
    show_golden(stand_in, inputs)
    stand_in.done_after = 11
    result = evaluate_suite(policy, suite('task_2'), trials=3)
    (environment,) = stand_in.environments
    assert environment.file == '/where/bddl_files/folder/task_2.bddl'
    assert environment.size == (256, 256)
    assert environment.calls[0] == ('seed', 0) and environment.calls[-1] == ('close',)
    assert [call for call in environment.calls if call[0] == 'state'] == [
        ('state', 200.0), ('state', 201.0), ('state', 202.0),
    ]  # fmt: skip
    assert [one.seed for one in result.episodes] == [2000, 2001, 2002]


@pytest.mark.parametrize(
    ('name', 'steps'),
    [('libero_spatial', 220), ('libero_object', 280), ('libero_goal', 300), ('libero_10', 520),
     ('libero_90', 400)],
)  # fmt: skip
def test_the_time_is_up_after_the_published_steps(stand_in, name, steps):
    result = evaluate_suite(Still(), suite('1', name), trials=1)
    assert len(stand_in.environments[0].actions) == steps + 10
    episode = result.episodes[0]
    assert not episode.success and episode.duration == pytest.approx(steps / 20)
    assert episode.chunks == math.ceil(steps / 8)


class Still:
    """A policy that does nothing, quickly."""

    checkpoint = 'still@0'

    def __init__(self, platform=LIBERO):
        self.platform = platform
        self.given = []

    def warmup(self):
        pass

    def act(self, observation):
        self.given.append(observation)
        return types.SimpleNamespace(actions=np.zeros((8, 7)))


def test_success_while_things_settle_does_not_count(stand_in):
    stand_in.done_after = 5
    result = evaluate_suite(Still(), suite(), trials=1)
    assert not result.episodes[0].success and len(result.episodes[0].trace) == 220


def test_a_simulator_that_fails_is_not_counted_as_a_failure_of_the_policy(stand_in):
    stand_in.breaks_after = 12
    with pytest.raises(HbvlaError, match=r'^task_0, trial 0: the simulator failed .*QACC\)$'):
        evaluate_suite(Still(), suite(), trials=1)
    assert stand_in.environments[0].calls[-1] == ('close',)


def test_fifty_episodes_of_each_task_and_rates_by_task(stand_in):
    stand_in.done_after = 11
    seen = []
    result = evaluate_suite(Still(), suite(None), progress=seen.append)
    assert len(result.episodes) == len(seen) == 3 * 50
    content = json.loads(json.dumps(result.to_json()))
    assert content['success_rate'] == 1.0 and content['episodes'] == 150
    assert [one['task'] for one in content['tasks']] == ['task_0', 'task_1', 'task_2']
    assert content['tasks'][0]['interval'] == pytest.approx([0.9287, 1.0], abs=1e-4)
    assert content['settings']['trials'] == {'task_0': 50, 'task_1': 50, 'task_2': 50}
    assert content['rows'][50]['task'] == 'task_1' and content['rows'][50]['trial'] == 0


def test_more_episodes_than_initial_states_are_refused(stand_in):
    with pytest.raises(HbvlaError, match='51 episodes a task: libero_spatial has 1 to 50'):
        evaluate_suite(Still(), suite(), trials=51)
    assert not stand_in.environments


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'robot': 'aloha'}, "trained for robot 'aloha'"),
        ({'rotate_180': False}, 'rotate_180 is false'),
        ({'gripper': 'continuous'}, "gripper rule 'continuous'"),
        ({'cameras': ('full',)}, "no camera 'full' there"),
        ({'step': 0.04}, '0.04 s a step'),
        ({'proprio_dim': 7}, 'proprio_dim 7'),
        ({'action_dim': 14}, '14 action values'),
    ],
)
def test_a_policy_for_something_else_is_refused(changes, message):
    platform = dataclasses.replace(LIBERO, **changes)
    with pytest.raises(HbvlaError, match=message):
        suite().fit(platform, KEYS)


def test_one_camera_and_no_proprioception_are_a_policy_for_libero(stand_in):
    platform = dataclasses.replace(LIBERO, cameras=('agentview_image',), proprio_dim=0)
    assert suite().fit(platform, KEYS).statistics_key == 'libero_spatial_no_noops'
    stand_in.done_after, policy = 11, Still(platform)
    evaluate_suite(policy, suite(), trials=1)
    assert [list(one.images) for one in policy.given] == [['agentview_image']]


def test_the_statistics_must_be_those_of_the_task_suite():
    both = ['libero_goal_no_noops', 'libero_object_no_noops']
    assert suite(name='libero_goal').fit(LIBERO, both).statistics_key == 'libero_goal_no_noops'
    with pytest.raises(HbvlaError, match='statistics of libero_goal_no_noops, libero_object_no'):
        suite(name='libero_10').fit(LIBERO, both)
    fixed = dataclasses.replace(LIBERO, statistics_key='libero_object_no_noops')
    with pytest.raises(HbvlaError, match='so it was not trained on this one'):
        suite(name='libero_goal').fit(fixed, both)


def test_the_task_suite_is_read_off_the_checkpoint():
    assert libero.task_suite_of(LIBERO, ['libero_10_no_noops']) == 'libero_10'
    named = dataclasses.replace(LIBERO, statistics_key='libero_goal')
    assert libero.task_suite_of(named, ['libero_goal_no_noops', 'x']) == 'libero_goal'
    with pytest.raises(HbvlaError, match='trained on several .libero_spatial, libero_goal.'):
        libero.task_suite_of(LIBERO, ['libero_spatial_no_noops', 'libero_goal'])
    with pytest.raises(HbvlaError, match='its datasets are cups; give one of libero_spatial,'):
        libero.task_suite_of(LIBERO, ['cups'])


def test_without_libero_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv('LIBERO_CONFIG_PATH', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'libero', None)
    with pytest.raises(HbvlaError, match=r'^LIBERO is not installed .*pip install -e LIBERO'):
        suite().tasks()


def test_a_libero_that_would_ask_a_question_is_refused(stand_in):
    (stand_in.folder / 'config.yaml').unlink()
    with pytest.raises(HbvlaError, match=r'config.yaml: missing, LIBERO has not been set up'):
        suite().tasks()


def test_an_unknown_task_is_one_line(stand_in):
    with pytest.raises(HbvlaError, match="task 'fold': not in libero_spatial; give a number"):
        suite('fold').tasks()
    with pytest.raises(HbvlaError, match="task suite 'libero_100': unknown"):
        suite(name='libero_100')
