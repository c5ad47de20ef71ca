# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""LIBERO's adapter against a stand-in that has LIBERO's interface and nothing else of it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from hbvla_ros.cli.main import main
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.suites import libero
from hbvla_ros.evaluation.suites.run import evaluate_suite
from hbvla_ros.policy import Policy
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.platform import ALOHA, LIBERO
from hbvla_ros.vla.tokens import complete_ids

# torch says that it does what it was told to, once a file of initial states.
pytestmark = pytest.mark.filterwarnings('ignore:Environment variable TORCH_FORCE')

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft' / 'libero_l1'
KEYS = ['libero_spatial_no_noops']
TASKS, STATES = 3, 50


class Task(NamedTuple):
    name: str
    language: str
    problem: str
    problem_folder: str
    bddl_file: str
    init_states_file: str


class StandIn:
    """What a test wants LIBERO to show, and what LIBERO was asked to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = np.zeros((2, 256, 256, 3), dtype=np.uint8)
        self.position, self.quaternion = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
        self.gripper = np.zeros(2)
        self.done_after: int | None = None  # steps of an episode, the settling ones included
        self.breaks_after: int | None = None
        self.breaks_in: int | None = None  # number of the episode
        self.environments: list[Environment] = []


class Environment:
    """robosuite's side of OffScreenRenderEnv."""

    def __init__(self, stand_in, bddl_file_name, camera_heights, camera_widths):
        self.stand_in, self.file = stand_in, bddl_file_name
        self.size = (camera_heights, camera_widths)
        self.calls: list[tuple] = []
        self.steps: int | None = None
        stand_in.environments.append(self)

    def seed(self, seed):
        self.calls.append(('seed', seed))

    def reset(self):
        self.steps = None
        self.calls.append(('reset',))
        return self.observation()

    def set_init_state(self, state):
        assert self.calls[-1] == ('reset',), 'the initial state would be lost in a later reset'
        self.calls.append(('state', float(state[0])))
        self.steps = 0
        if self.stand_in.breaks_in is not None:
            self.stand_in.breaks_in -= 1
            if self.stand_in.breaks_in == 0:
                raise RuntimeError('no memory left')
        return self.observation()

    def step(self, action):
        assert self.steps is not None, 'the initial state was not set'
        assert isinstance(action, list) and len(action) == 7
        self.calls.append(('step', *action))
        self.steps += 1
        if self.steps == self.stand_in.breaks_after:
            raise RuntimeError('Nan, Inf or huge value in QACC\nsecond line')
        done = self.steps == self.stand_in.done_after
        return self.observation(), float(done), done, {}

    def observation(self):
        show = self.stand_in
        return {
            'agentview_image': show.images[0],
            'robot0_eye_in_hand_image': show.images[1],
            'robot0_eef_pos': show.position,
            'robot0_eef_quat': show.quaternion,
            'robot0_gripper_qpos': show.gripper,
        }

    def close(self):
        self.calls.append(('close',))

    @property
    def actions(self):
        return np.array([call[1:] for call in self.calls if call[0] == 'step'])


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """LIBERO as far as it is used, with initial states in the format of its files."""
    show = StandIn(tmp_path)
    for index in range(TASKS):
        states = np.full((STATES, 5), 0.0) + np.arange(STATES)[:, None] + 100 * index
        torch.save(states, tmp_path / f'{index}.pruned_init')

    class Benchmark:
        def __init__(self):
            print('[info] using task orders [0, 1, 2]')

        def get_num_tasks(self):
            return TASKS

        def get_task(self, index):
            name = f'task_{index}'
            return Task(
                name, 'put the cube', 'Libero', 'folder', f'{name}.bddl', f'{name}.pruned_init'
            )

        def get_task_init_states(self, index):
            return torch.load(tmp_path / f'{index}.pruned_init')

    modules = {
        'libero': {},
        'libero.libero': {'get_libero_path': lambda key: f'/where/{key}'},
        'libero.libero.benchmark': {
            'get_benchmark_dict': lambda: dict.fromkeys(libero.MAX_STEPS, Benchmark)
        },
        'libero.libero.envs': {
            'OffScreenRenderEnv': lambda **options: Environment(show, **options)
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / 'config.yaml').write_text('{}')
    monkeypatch.setenv('LIBERO_CONFIG_PATH', str(tmp_path))
    return show


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


@pytest.fixture
def checkpoint(make_tiny_checkpoint):
    """A folder of random weights as for LIBERO-Spatial."""
    changes = {key: value for key, value in dataclasses.asdict(LIBERO).items()
               if value != getattr(ALOHA, key)}  # fmt: skip
    folder = make_tiny_checkpoint(platform={**changes, 'chunk': 3, 'normalisation': 'bounds_q99'})
    ranges = {'q01': [-1.0] * 8, 'q99': [1.0] * 8}
    action = {key: values[:7] for key, values in ranges.items()} | {'mask': [True] * 6 + [False]}
    content = {'libero_spatial_no_noops': {'action': action, 'proprio': ranges}}
    (folder / 'dataset_statistics.json').write_text(json.dumps(content))
    return folder


def test_the_command_prints_json_that_libero_does_not_spoil(stand_in, checkpoint, tmp_path, capsys):
    stand_in.done_after, out = 14, tmp_path / 'new' / 'result.json'
    arguments = ['eval', str(checkpoint), '--suite', 'libero', '--episodes', '2', '--json']
    assert main([*arguments, '--out', str(out)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result == json.loads(out.read_text())
    assert (result['success_rate'], result['episodes'], result['task']) == (
        1.0,
        6,
        'libero_spatial',
    )
    assert result['settings']['statistics_key'] == 'libero_spatial_no_noops'
    assert (result['settings']['seed'], result['settings']['execute']) == (7, 3)
    assert '[info] using task orders' in captured.err and result['versions']['torch']


def test_a_stopped_command_goes_on_with_the_same_result(
    stand_in, checkpoint, tmp_path, capsys, monkeypatch
):
    out, stand_in.done_after = tmp_path / 'a.json', 15
    arguments = ['eval', str(checkpoint), '--suite', 'libero', '--episodes', '3', '--out', str(out)]
    stand_in.breaks_in = 5
    assert main(arguments) == 2
    assert 'task_1, trial 1: the simulator failed' in capsys.readouterr().err
    assert not out.exists()
    stand_in.breaks_in = None
    assert main(arguments) == 2
    assert 'add --resume to go on' in capsys.readouterr().err
    before = len(stand_in.environments)
    assert main([*arguments, '--resume']) == 0
    # The first task is done; in the second one the first episode is drawn, but not run.
    second, third = stand_in.environments[before:]
    assert [call for call in second.calls if call[0] in ('seed', 'reset', 'state')] == [
        ('seed', 0), ('reset',), ('reset',), ('state', 101.0), ('reset',), ('state', 102.0),
    ]  # fmt: skip
    assert sum(call[0] == 'state' for call in third.calls) == 3
    resumed = json.loads(out.read_text())
    assert main([*arguments[:-1], str(tmp_path / 'b.json')]) == 0
    whole = json.loads((tmp_path / 'b.json').read_text())
    for result in (resumed, whole):
        for row in result['rows']:
            del row['latency_p50_s'], row['latency_p95_s']
    assert resumed['rows'] == whole['rows'] and resumed['tasks'] == whole['tasks']
    assert resumed['episodes'] == 9 and resumed['settings'] == whole['settings']


def test_the_command_prints_a_line_a_task(stand_in, checkpoint, capsys):
    stand_in.done_after = 12
    arguments = ['eval', str(checkpoint), '--suite', 'libero', '--task', '1', '--episodes', '1']
    assert main([*arguments, '--task-suite', 'libero_spatial']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'task_1          1/1 = 100 % (21 to 100 %)',
        'libero_spatial  1/1 = 100 % (21 to 100 %)',
    ]


def test_the_task_suite_is_libero_s_alone(checkpoint, capsys):
    assert main(['eval', str(checkpoint), '--task-suite', 'libero_10']) == 2
    assert '--task-suite: only with --suite libero' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--task-suite', 'libero_10'], 'it was not trained on this one'),
        (['--task-suite', 'libero_11'], "task suite 'libero_11': unknown"),
        (['--task', 'fold'], "task 'fold': not in libero_spatial"),
        (['--episodes', '99'], '99 episodes a task'),
        (['--episodes', '0'], '0 episodes a task'),
        (['--ros'], '--ros: not with --suite'),
        (['--resume'], '--resume: name the result file'),
        (['--max-seconds', '3'], '--max-seconds: not with --suite'),
        (['--task', '0', '1'], '2 tasks: --suite takes one at a time'),
        (['--parallel', '2'], '--parallel: not with --suite'),
        (['--platform', 'aloha'], "platform aloha: trained for robot 'aloha'"),
    ],
)
def test_bad_input_is_one_line(stand_in, checkpoint, capsys, arguments, message):
    assert main(['eval', str(checkpoint), '--suite', 'libero', *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('hbvla: error: ') and message in lines[-1]
