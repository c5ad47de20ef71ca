# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A stand-in for LIBERO, and replays of a small bag with a policy that knows what was recorded."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.data import ActionChunk
from hbvla_ros.evaluation.latency_traces import parse_latency
from hbvla_ros.evaluation.replay import ReplaySettings
from hbvla_ros.evaluation.replay_run import ReplayRequest, replay_bag
from hbvla_ros.evaluation.replay_summary import kind_of
from hbvla_ros.evaluation.suites import libero
from hbvla_ros.recordings.degradations import parse_degradation
from hbvla_ros.recordings.fixture import FixtureOptions, Motion, write_fixture
from hbvla_ros.vla.platform import ALOHA

PROFILE = RobotProfile.load('aloha_sim')
# Beginning of the bag, s; rows of a chunk, and seconds between them.
START, ROWS, STEP = 1_700_000_000.0, 10, 0.04
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


class Recorder:
    """Commands what was recorded, a little beside it: a perfect policy with a known error."""

    checkpoint = 'recorder-0000'

    def __init__(self, beside=0.0, start=START, robot='aloha_sim', profile=PROFILE):
        cameras, width = tuple(one.name for one in profile.cameras), len(profile.action_names)
        self.platform = dataclasses.replace(
            ALOHA, robot=robot, cameras=cameras, chunk=ROWS, action_dim=width, proprio_dim=width
        )
        self._motion, self._beside, self._start = Motion(profile, 0), beside, start
        self._profile, self.observations = profile, []

    def act(self, observation):
        self.observations.append(observation)
        due = observation.stamp - self._start + STEP * np.arange(ROWS)
        rows = np.array([self._motion.at(time) for time in due])
        rows[:, ~self._profile.is_gripper] += self._beside * np.arange(ROWS)[:, None]
        rows = self._profile.pose_to_action(rows)
        return ActionChunk(rows, observation.stamp, STEP, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip

    def warmup(self):
        pass


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'bag'
    write_fixture(path, PROFILE, FixtureOptions(seconds=2.0))
    return path


def run_replay(
    bag, *faults, policy=None, latency='0.06', events=(), profile=PROFILE, against='commands',
    **settings,
):  # fmt: skip
    request = ReplayRequest(
        bag, parse_latency(latency, 0), events, [parse_degradation(text) for text in faults],
        ReplaySettings(**settings), against,
    )  # fmt: skip
    result = replay_bag(request, policy or Recorder(), profile)
    check_commands(result, profile)
    return result


def check_commands(result, profile):
    """Whatever happens: finite, inside the limits, capped, in order of time."""
    ticks, stage = result.replayed.ticks, SafetyStage.of(profile)
    sent = np.array([tick.command for tick in ticks if tick.command is not None])
    assert np.isfinite(sent).all()
    assert (sent >= stage.lower - 1e-9).all() and (sent <= stage.upper + 1e-9).all()
    steps = np.diff(sent, axis=0)
    assert (np.abs(steps) <= stage.velocity * stage.period + 1e-9).all()
    changes = np.abs(np.diff(steps, axis=0))
    assert (changes <= stage.acceleration * stage.period**2 + 1e-9).all()
    elapsed = [tick.instant.elapsed for tick in ticks]
    assert (np.diff(elapsed) > 0.5 * stage.period).all()
    commands = result.report['commands']
    keys = ('not_finite', 'outside_limits', 'steps_above_limit')
    assert [commands[key] for key in keys] == [0, 0, 0]


def reasons_held(result, start, stop):
    """Reasons without numbers between two times, each once; '' while a target was followed."""
    ticks = result.replayed.ticks
    return {kind_of(tick.holding) for tick in ticks if start <= tick.instant.elapsed < stop}


@pytest.fixture(scope='session')
def recorder():
    """The class of a policy that commands what was recorded."""
    return Recorder


@pytest.fixture(scope='session')
def replay():
    """Replays a bag with faults injected, and looks at every command."""
    return run_replay


@pytest.fixture(scope='session')
def held():
    """Tells for which reasons a replay held between two times."""
    return reasons_held


@pytest.fixture(scope='module')
def plain(bag):
    """The replay without anything injected."""
    return run_replay(bag)
