# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""LIBERO with the conventions of OpenVLA-OFT (openvla_oft spec, sections 3, 7 and 10).

The image rotation and the gripper rule are the platform's (``rotate_180``, ``gripper: libero``) and
are applied by the policy; a platform without them is refused, so neither is done twice or never.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.suites.base import Scene, Suite, SuiteTask, Values, require
from hbvla_ros.evaluation.suites.rotations import axis_angle_of_xyzw

if TYPE_CHECKING:
    from hbvla_ros.policy import Platform

# Control steps of the policy a task suite, the settling steps not counted.
MAX_STEPS = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
    'libero_90': 400,
}
TRIALS = 50
RESOLUTION = 256
SETTLING_STEPS = 10
# Nothing moves, the gripper stays open.
DUMMY_ACTION = (0, 0, 0, 0, 0, 0, -1)
# Every task's simulator gets this one: it moves fixtures that the initial states do not cover.
SIMULATOR_SEED = 0
CAMERAS = ('agentview_image', 'robot0_eye_in_hand_image')
_RATE = 20.0
_INSTALL = (
    'clone github.com/Lifelong-Robot-Learning/LIBERO, then pip install -e LIBERO and '
    'pip install robosuite==1.4.1 bddl easydict cloudpickle gym (docs/suites.md)'
)


class LiberoSuite(Suite):
    """One of LIBERO's five task suites."""

    name = 'libero'
    step = 1.0 / _RATE

    def __init__(self, task_suite: str, task: str | None = None) -> None:
        """Choose what to run; LIBERO itself is not imported yet.

        Args:
            task_suite: a key of :data:`MAX_STEPS`.
            task: name or number of a single task; None for all.

        Raises:
            HbvlaError: unknown task suite.
        """
        if task_suite not in MAX_STEPS:
            raise HbvlaError(
                f'task suite {task_suite!r}: unknown; LIBERO has {", ".join(MAX_STEPS)}'
            )
        self.label, self._task = task_suite, task
        self.settings = {
            'task_suite': task_suite,
            'settling_steps': SETTLING_STEPS,
            'camera_size': RESOLUTION,
            'simulator_seed': SIMULATOR_SEED,
        }

    def fit(self, platform: Platform, keys: Sequence[str]) -> Platform:
        """See :meth:`Suite.fit`; the dataset is the task suite's, with or without ``_no_noops``."""
        check_platform(platform)
        own = [key for key in (self.label, f'{self.label}_no_noops') if key in keys]
        chosen = platform.statistics_key
        if not own or (chosen is not None and chosen not in (self.label, *own)):
            trained = chosen or ', '.join(keys)
            raise HbvlaError(
                f'task suite {self.label}: the checkpoint has statistics of {trained}, so it was '
                'not trained on this one; choose another --task-suite or checkpoint'
            )
        return dataclasses.replace(platform, statistics_key=own[0])

    def tasks(self) -> Sequence[SuiteTask]:
        """See :meth:`Suite.tasks`; in LIBERO's own order."""
        benchmark = self._benchmark()
        every = [
            SuiteTask(index, benchmark.get_task(index).name, MAX_STEPS[self.label], TRIALS)
            for index in range(benchmark.get_num_tasks())
        ]
        if self._task is None:
            return every
        chosen = [one for one in every if self._task in (one.name, str(one.index))]
        if not chosen:
            raise HbvlaError(
                f'task {self._task!r}: not in {self.label}; give a number from 0 to '
                f'{len(every) - 1}, or a name such as {every[0].name}'
            )
        return chosen

    def open(self, task: SuiteTask) -> Scene:
        """See :meth:`Suite.open`."""
        packages = import_libero()
        benchmark = self._benchmark()
        info = benchmark.get_task(task.index)
        with _trusted_states():
            states = benchmark.get_task_init_states(task.index)
        path = os.path.join(
            packages.libero.get_libero_path('bddl_files'), info.problem_folder, info.bddl_file
        )
        environment = packages.envs.OffScreenRenderEnv(
            bddl_file_name=path, camera_heights=RESOLUTION, camera_widths=RESOLUTION
        )
        environment.seed(SIMULATOR_SEED)
        return LiberoScene(environment, str(info.language), states)

    def _benchmark(self) -> Any:
        """LIBERO's object for the task suite; made anew, it holds nothing but names."""
        return import_libero().benchmark.get_benchmark_dict()[self.label]()


class LiberoScene(Scene):
    """One LIBERO task in robosuite."""

    def __init__(self, environment: Any, instruction: str, states: Any) -> None:
        """Wrap an environment that was just made, with its initial states."""
        self._environment, self._instruction, self._states = environment, instruction, states
        self._seen: dict[str, Any] = {}

    @property
    def instruction(self) -> str:
        """The task in words."""
        return self._instruction

    def start(self, trial: int) -> None:
        """Take the trial's initial state and let things come to rest."""
        if trial >= len(self._states):
            raise HbvlaError(
                f'trial {trial}: LIBERO has {len(self._states)} initial states of this task; '
                'give fewer --episodes'
            )
        self._environment.reset()
        self._seen = self._environment.set_init_state(self._states[trial])
        for _ in range(SETTLING_STEPS):
            self._seen = self._environment.step(list(DUMMY_ACTION))[0]

    def skip(self, trial: int) -> None:
        """Draw what a reset draws: the simulator is seeded once for all episodes of a task."""
        self._environment.reset()

    def observe(self) -> tuple[dict[str, NDArray[np.uint8]], Values]:
        """Frames as robosuite renders them, position, axis angle and two gripper joints (8,)."""
        images = {camera: self._seen[camera] for camera in CAMERAS}
        proprioception = np.concatenate(
            [
                self._seen['robot0_eef_pos'],
                axis_angle_of_xyzw(self._seen['robot0_eef_quat']),
                self._seen['robot0_gripper_qpos'],
            ]
        )
        return images, proprioception.astype(np.float64)

    def act(self, action: Values) -> tuple[bool, bool]:
        """LIBERO ends an episode at the first success."""
        self._seen, _, done, _ = self._environment.step(action.tolist())
        return bool(done), bool(done)

    def close(self) -> None:
        """End the simulator."""
        self._environment.close()


@dataclasses.dataclass(frozen=True)
class LiberoPackages:
    """The three modules of LIBERO that are used."""

    libero: Any
    benchmark: Any
    envs: Any


def import_libero() -> LiberoPackages:
    """Import LIBERO.

    Raises:
        HbvlaError: it or something it needs is not installed, or it was never set up.
    """
    folder = os.environ.get('LIBERO_CONFIG_PATH', os.path.expanduser('~/.libero'))
    try:
        # The first import of an installed LIBERO asks a question on the terminal, and would hang
        # where there is nobody to answer it.
        if importlib.util.find_spec('libero') and not Path(folder, 'config.yaml').is_file():
            raise HbvlaError(
                f'{folder}/config.yaml: missing, LIBERO has not been set up; run "python -c '
                "'import libero.libero'\" once in a terminal and answer its question"
            )
        names = ('libero.libero', 'libero.libero.benchmark', 'libero.libero.envs')
        return LiberoPackages(*(importlib.import_module(name) for name in names))
    except ImportError as error:
        raise HbvlaError(f'LIBERO is not installed ({error}): {_INSTALL}') from error


def check_platform(platform: Platform) -> None:
    """Refuse a policy that was not trained for LIBERO's robot and cameras.

    Raises:
        HbvlaError: naming what does not fit.
    """

    def must(condition: bool, what: str) -> None:
        require(condition, platform, 'LIBERO (the built-in platform is "libero")', what)

    must(platform.robot == 'libero', f'trained for robot {platform.robot!r}')
    unknown = [camera for camera in platform.cameras if camera not in CAMERAS]
    must(not unknown, f'no camera {unknown and unknown[0]!r} there, only {", ".join(CAMERAS)}')
    must(platform.action_dim == 7, f'{platform.action_dim} action values instead of 7')
    must(platform.proprio_dim in (0, 8), f'proprio_dim {platform.proprio_dim} instead of 8 or 0')
    must(platform.rotate_180, 'rotate_180 is false, but the images are upside down')
    must(platform.gripper == 'libero', f'gripper rule {platform.gripper!r} instead of "libero"')
    must(abs(platform.step * _RATE - 1) < 1e-6, f'{platform.step} s a step instead of 0.05')


def task_suite_of(platform: Platform, keys: Sequence[str]) -> str:
    """The task suite that a checkpoint was trained on.

    Raises:
        HbvlaError: it was trained on several or on none of them.
    """
    named = [platform.statistics_key] if platform.statistics_key else list(keys)
    found = [suite for suite in MAX_STEPS if any(key.removesuffix('_no_noops') == suite
                                                 for key in named)]  # fmt: skip
    if len(found) != 1:
        several = f'trained on several ({", ".join(found)})' if found else (
            f'its datasets are {", ".join(named)}'
        )  # fmt: skip
        raise HbvlaError(
            f'--task-suite: the checkpoint does not say which, {several}; '
            f'give one of {", ".join(found or MAX_STEPS)}'
        )
    return found[0]


@contextlib.contextmanager
def _trusted_states() -> Iterator[None]:
    """Let torch 2.6 and later load LIBERO's initial states.

    They are pickled NumPy arrays, which torch.load refuses by default since then, and LIBERO does
    not ask for them in another way. They come with the package whose code was just imported, so
    they are trusted as much as that; nothing else is loaded under this setting.
    """
    name = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
