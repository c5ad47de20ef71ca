# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A stand-in for LIBERO, and replays of a small bag with a policy that knows what was recorded."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from hbvla_ros.evaluation.suites import libero

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
