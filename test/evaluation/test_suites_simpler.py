# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""SimplerEnv's adapter against a stand-in that has SimplerEnv's interface and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types

import numpy as np
import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.suites import simpler, simpler_scene
from hbvla_ros.evaluation.suites.run import evaluate_suite
from hbvla_ros.vla.platform import ALOHA, BRIDGE

GOOGLE = dataclasses.replace(
    BRIDGE, name='google', robot='google_robot', cameras=('image',), chunk=4, step=1 / 3,
    proprio_dim=8,
)  # fmt: skip
HALF = math.sqrt(0.5)


class StandIn:
    """What a test wants SimplerEnv to show, and what it was asked to do."""

    def __init__(self) -> None:
        self.base = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
        self.tool = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
        self.closedness = 0.25
        self.limit = 60
        self.success_at: set[int] = set()
        self.second_part_at: int | None = None
        self.environments: list[Environment] = []


def pose(values):
    """A SAPIEN pose."""
    return types.SimpleNamespace(p=values[:3], q=values[3:])


class Inner:
    """The ManiSkill2 environment below the wrappers."""

    def __init__(self, stand_in, task):
        self.stand_in, self.steps = stand_in, 0
        self.robot_uid = 'widowx' if task.startswith('widowx') else 'google_robot_static'
        self.agent = types.SimpleNamespace(
            get_gripper_closedness=lambda: stand_in.closedness, base_pose=pose(stand_in.base)
        )
        # In all tasks; the observation has it in some of them only.
        self.tcp = types.SimpleNamespace(pose=pose(stand_in.tool))

    def get_language_instruction(self):
        second = self.stand_in.second_part_at
        return 'put it down' if second is not None and self.steps >= second else 'take it'


class Environment:
    """What make() returns: a wrapper that passes nothing else on."""

    def __init__(self, stand_in, task):
        self.task, self.stand_in = task, stand_in
        self.unwrapped = Inner(stand_in, task)
        self.resets, self.actions, self.closed = [], [], False
        stand_in.environments.append(self)

    def reset(self, *, seed=None, options=None):
        self.resets.append((seed, options))
        self.unwrapped.steps = 0
        return self.observation(), {}

    def step(self, action):
        assert isinstance(action, np.ndarray) and action.shape == (7,)
        self.actions.append(action)
        self.unwrapped.steps += 1
        steps = self.unwrapped.steps
        success = steps in self.stand_in.success_at
        return self.observation(), float(success), success, steps >= self.stand_in.limit, {}

    def observation(self):
        frame = np.full((48, 64, 3), self.unwrapped.steps, dtype=np.uint8)
        camera = '3rd_view_camera' if 'widowx' in self.task else 'overhead_camera'
        return {'agent': {}, 'extra': {}, 'image': {camera: {'rgb': frame}}}

    def close(self):
        self.closed = True


def image_of(env, obs):
    """SimplerEnv's own choice of the camera."""
    camera = 'overhead_camera' if 'google_robot' in env.robot_uid else '3rd_view_camera'
    return obs['image'][camera]['rgb']


@pytest.fixture
def stand_in(monkeypatch):
    """SimplerEnv as far as it is used."""
    show = StandIn()

    def make(task):
        print('a line of the simulator')
        return Environment(show, task)

    contents = {
        'simpler_env': {'ENVIRONMENTS': list(simpler.TASKS), 'make': make},
        'simpler_env.utils': {},
        'simpler_env.utils.env': {},
        'simpler_env.utils.env.observation_utils': {'get_image_from_maniskill2_obs_dict': image_of},
    }
    for name, content in contents.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return show


class Scripted:
    """A policy that plays rows of actions, chunk after chunk."""

    checkpoint = 'scripted@0'

    def __init__(self, platform, rows):
        self.platform, self.rows = platform, np.asarray(rows, dtype=np.float64)
        self.given = []

    def warmup(self):
        pass

    def act(self, observation):
        begin = len(self.given) * self.platform.chunk
        self.given.append(observation)
        chunk = [self.rows[(begin + i) % len(self.rows)] for i in range(self.platform.chunk)]
        return types.SimpleNamespace(actions=np.array(chunk))


def grips(states):
    """Rows that differ in the gripper alone."""
    rows = np.zeros((len(states), 7))
    rows[:, 6] = states
    return rows


def test_widowx_gets_deltas_axis_angles_and_an_open_or_closed_gripper(stand_in):
    rows = [[0.01, -0.02, 0.03, 0.0, 0.0, 0.3, 0.9], [0.0, 0.0, 0.0, 0.5, 1.2, -0.7, 0.4],
            [0, 0, 0, 0, 0, 0, 0.5]]  # fmt: skip
    policy = Scripted(BRIDGE, rows)
    evaluate_suite(policy, simpler.SimplerSuite('bridge', 'widowx_stack_cube'), trials=1)
    actions = stand_in.environments[0].actions
    np.testing.assert_allclose(actions[0], [0.01, -0.02, 0.03, 0, 0, 0.3, 1.0], atol=1e-12)
    # What transforms3d gives, axis times angle of euler2axangle(0.5, 1.2, -0.7).
    np.testing.assert_allclose(actions[1][3:6], [0.8440751, 0.9875616, -0.9019754], atol=1e-6)
    assert actions[1][6] == -1.0 and actions[2][6] == -1.0
    assert len(actions) == 60 and len(policy.given) == 60 / 5


def test_google_s_gripper_gets_changes_that_last_fifteen_steps(stand_in):
    stand_in.limit = 80
    states = [1.0, 1.0, 0.9, 0.0, *[0.0] * 16, 1.0, *[1.0] * 20]
    suite = simpler.SimplerSuite('google_robot', 'google_robot_move_near')
    evaluate_suite(Scripted(GOOGLE, grips(states)), suite, trials=1)
    commands = np.array(stand_in.environments[0].actions)[:41, 6]
    expected = [0, 0, 0.1, *[0.9] * 15, 0, 0, *[-1.0] * 15, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(commands, expected, atol=1e-12)


def test_the_gripper_forgets_when_an_episode_begins(stand_in):
    stand_in.limit = 5
    suite = simpler.SimplerSuite('google_robot', 'google_robot_move_near')
    evaluate_suite(Scripted(GOOGLE, grips([1, 1, 1, 1, 0, 0, 0, 0])), suite, trials=2)
    commands = np.array(stand_in.environments[0].actions)[:, 6]
    # What was started in the last step of the first would go on for 14 more.
    np.testing.assert_allclose(commands, [0, 0, 0, 0, 1] * 2)


def test_a_new_instruction_ends_the_chunk_and_the_sticky_gripper(stand_in):
    stand_in.limit, stand_in.second_part_at = 10, 6
    policy = Scripted(GOOGLE, grips([1, 0, 0, 0, 0, 0, 0, 0]))
    suite = simpler.SimplerSuite('google_robot', 'google_robot_place_apple_in_closed_top_drawer')
    result = evaluate_suite(policy, suite, trials=1)
    assert [one.instruction for one in policy.given] == ['take it'] * 2 + ['put it down']
    assert [one.stamp for one in policy.given] == pytest.approx([0.0, 4 / 3, 6 / 3])
    commands = np.array(stand_in.environments[0].actions)[:, 6]
    np.testing.assert_allclose(commands, [0, 1, 1, 1, 1, 1, 0, 1, 1, 1])
    assert result.episodes[0].instruction == 'put it down'


def test_success_is_what_holds_when_the_time_is_up(stand_in):
    suite = simpler.SimplerSuite('bridge', 'widowx_carrot_on_plate')
    policy = Scripted(BRIDGE, grips([1]))
    stand_in.success_at = {20, 21}
    lost = evaluate_suite(policy, suite, trials=1).episodes[0]
    assert not lost.success and lost.duration == pytest.approx(60 / 5)
    stand_in.success_at = {20, *range(50, 61)}
    kept = evaluate_suite(policy, suite, trials=1).episodes[0]
    assert kept.success and kept.duration == pytest.approx(50 / 5)


def test_an_environment_that_never_ends_is_ended(stand_in):
    stand_in.limit = 10_000
    suite = simpler.SimplerSuite('bridge', 'widowx_put_eggplant_in_basket')
    result = evaluate_suite(Scripted(BRIDGE, grips([1])), suite, trials=1)
    assert len(result.episodes[0].trace) == 120


def test_bridge_gives_the_pose_relative_to_a_gripper_that_points_down(stand_in):
    # The base stands at (1, 2, 0) and looks along world y; the tool is 0.3 before it, 0.2 up,
    # points down, and is turned by 0.4 about the vertical.
    stand_in.base = np.array([1.0, 2.0, 0.0, HALF, 0.0, 0.0, HALF])
    down = np.array([HALF, 0.0, HALF, 0.0])  # (w, x, y, z): x of the tool goes to -z
    turned = times(times([HALF, 0, 0, HALF], [math.cos(0.2), 0, 0, math.sin(0.2)]), down)
    stand_in.tool = np.concatenate([[1.0, 2.3, 0.2], turned])
    policy = Scripted(BRIDGE, grips([1]))
    suite = simpler.SimplerSuite('bridge', 'widowx_spoon_on_towel')
    evaluate_suite(policy, suite, trials=1)
    observation = policy.given[1]
    np.testing.assert_allclose(
        observation.proprioception, [0.3, 0.0, 0.2, 0.0, 0.0, 0.4, 0.75], atol=1e-9
    )
    assert list(observation.images) == ['image_0'] and (observation.images['image_0'] == 5).all()


def test_google_gives_quaternion_with_w_last_and_closedness(stand_in):
    stand_in.base = np.array([0.0, 0.0, 1.0, HALF, 0.0, 0.0, HALF])
    stand_in.tool = np.array([0.0, 0.5, 1.1, *times([HALF, 0, 0, HALF], [0.8, 0.6, 0.0, 0.0])])
    stand_in.limit = 80
    policy = Scripted(GOOGLE, grips([1]))
    suite = simpler.SimplerSuite('google_robot', 'google_robot_move_near')
    evaluate_suite(policy, suite, trials=1)
    np.testing.assert_allclose(
        policy.given[0].proprioception, [0.5, 0.0, 0.1, 0.6, 0.0, 0.0, 0.8, 0.25], atol=1e-9
    )


def times(first, second):
    """Product of two quaternions (w, x, y, z)."""
    a, b, c, d = first
    e, f, g, h = second
    return np.array([a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
                     a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e])  # fmt: skip


def test_all_tasks_of_a_robot_in_the_published_number_of_episodes(stand_in):
    stand_in.success_at = {60}
    result = evaluate_suite(Scripted(BRIDGE, grips([1])), simpler.SimplerSuite('bridge'))
    environments = stand_in.environments
    assert [one.task for one in environments] == [
        'widowx_spoon_on_towel', 'widowx_carrot_on_plate', 'widowx_stack_cube',
        'widowx_put_eggplant_in_basket',
    ]  # fmt: skip
    assert all(one.closed for one in environments)
    assert environments[2].resets == [
        (7 + trial, {'obj_init_options': {'episode_id': trial}}) for trial in range(24)
    ]
    content = json.loads(json.dumps(result.to_json()))
    assert content['episodes'] == 96 and content['success_rate'] == 1.0
    assert [one['episodes'] for one in content['tasks']] == [24] * 4


def test_google_s_layouts_are_the_can_s_grid_the_triplets_and_the_seed():
    can = [simpler_scene.layout('google_robot_pick_standing_coke_can', i) for i in range(25)]
    places = [one['obj_init_options']['init_xy'] for one in can]
    assert len({tuple(place) for place in places}) == 25
    np.testing.assert_allclose(np.min(places, axis=0), [-0.35, -0.02])
    np.testing.assert_allclose(np.max(places, axis=0), [-0.12, 0.42])
    assert simpler_scene.layout('google_robot_move_near', 59) == {
        'obj_init_options': {'episode_id': 59}
    }
    assert simpler_scene.layout('google_robot_open_top_drawer', 3) == {}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'cameras': ('image_0', 'image_1')}, 'cameras image_0, image_1 instead of image_0 alone'),
        ({'proprio_dim': 8}, 'proprio_dim 8 instead of 7 or 0'),
        ({'gripper': 'libero'}, "gripper rule 'libero'"),
        ({'rotate_180': True}, 'rotate_180 is true'),
        ({'step': 0.05}, '0.05 s a step instead of 0.200'),
        ({'action_dim': 14}, '14 action values'),
    ],
)
def test_a_policy_for_something_else_is_refused(changes, message):
    with pytest.raises(HbvlaError, match=message):
        simpler.SimplerSuite('bridge').fit(dataclasses.replace(BRIDGE, **changes), ['bridge_orig'])


def test_the_wrong_robot_or_task_is_refused():
    with pytest.raises(HbvlaError, match="robot 'libero': not in SIMPLER"):
        simpler.SimplerSuite('libero')
    with pytest.raises(
        HbvlaError, match="task 'google_robot_move_near': not one of robot 'bridge'"
    ):
        simpler.SimplerSuite('bridge', 'google_robot_move_near')


def test_the_statistics_are_the_robot_s_own():
    suite = simpler.SimplerSuite('bridge')
    several = ['bridge_orig', 'fractal20220817_data']
    assert suite.fit(BRIDGE, several).statistics_key == 'bridge_orig'
    assert suite.fit(BRIDGE, ['my_bridge_run']).statistics_key == 'my_bridge_run'
    with pytest.raises(HbvlaError, match='has kuka, taco and none of bridge_orig'):
        suite.fit(BRIDGE, ['kuka', 'taco'])
    with pytest.raises(HbvlaError, match="no statistics of 'other'"):
        suite.fit(dataclasses.replace(BRIDGE, statistics_key='other'), several)


def test_without_simplerenv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'simpler_env', None)
    with pytest.raises(HbvlaError, match='^SimplerEnv is not installed .*ManiSkill2_real2sim'):
        simpler.SimplerSuite('bridge').tasks()


def test_a_task_that_the_installed_version_lacks_is_named(stand_in):
    sys.modules['simpler_env'].ENVIRONMENTS.remove('widowx_stack_cube')
    with pytest.raises(HbvlaError, match='task widowx_stack_cube: not in the SimplerEnv'):
        simpler.SimplerSuite('bridge').tasks()


def test_the_command_runs_one_task_with_a_real_policy(stand_in, make_tiny_checkpoint, capsys):
    changes = {key: value for key, value in dataclasses.asdict(BRIDGE).items()
               if value != getattr(ALOHA, key)}  # fmt: skip
    folder = make_tiny_checkpoint(platform={**changes, 'chunk': 3})
    ranges = {'q01': [-1.0] * 7, 'q99': [1.0] * 7}
    action = {**ranges, 'mask': [True] * 6 + [False]}
    (folder / 'dataset_statistics.json').write_text(
        json.dumps({'bridge_orig': {'action': action, 'proprio': ranges}})
    )
    stand_in.limit, stand_in.success_at = 6, {6}
    arguments = ['eval', str(folder), '--suite', 'simpler', '--task', 'widowx_stack_cube']
    assert main([*arguments, '--episodes', '2', '--seed', '3', '--json']) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result['task'], result['episodes']) == ('widowx_stack_cube', 2)
    assert result['success_rate'] == 1.0 and 'a line of the simulator' in captured.err
    assert stand_in.environments[0].resets[1][0] == 4
    assert np.isfinite(stand_in.environments[0].actions).all()
    assert main([*arguments, '--task-suite', 'libero_10']) == 2
    assert '--task-suite: only with --suite libero' in capsys.readouterr().err
