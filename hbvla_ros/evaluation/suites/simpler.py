# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""SimplerEnv's visual-matching tasks, with the conventions of its OpenVLA policies.

The tasks are SimplerEnv's prepackaged ones, so control rate, scene, robot pose and step limit are
its own. An episode lasts until its time is up and counts as a success if it is one then.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.suites.base import Scene, Suite, SuiteTask, require
from hbvla_ros.evaluation.suites.simpler_scene import (
    ACTION_SCALE,
    GOOGLE,
    OBSERVATIONS,
    STICKY_STEPS,
    WIDOWX,
    Robot,
    SimplerScene,
)

if TYPE_CHECKING:
    from hbvla_ros.policy import Platform

_INSTALL = (
    'clone github.com/simpler-env/SimplerEnv --recurse-submodules, then pip install "numpy<2" and '
    'pip install -e SimplerEnv/ManiSkill2_real2sim -e SimplerEnv (docs/suites.md)'
)
# Task -> (step limit, episodes). Those without a published grid of 24 or 60 layouts are drawn from
# the seed, 25 of them; the can has a grid of 25 places.
TASKS: Mapping[str, tuple[int, int]] = {
    'widowx_spoon_on_towel': (60, 24),
    'widowx_carrot_on_plate': (60, 24),
    'widowx_stack_cube': (60, 24),
    'widowx_put_eggplant_in_basket': (120, 24),
    'google_robot_pick_horizontal_coke_can': (80, 25),
    'google_robot_pick_vertical_coke_can': (80, 25),
    'google_robot_pick_standing_coke_can': (80, 25),
    'google_robot_move_near': (80, 60),
    'google_robot_open_top_drawer': (113, 25),
    'google_robot_open_middle_drawer': (113, 25),
    'google_robot_open_bottom_drawer': (113, 25),
    'google_robot_close_top_drawer': (113, 25),
    'google_robot_close_middle_drawer': (113, 25),
    'google_robot_close_bottom_drawer': (113, 25),
    'google_robot_place_apple_in_closed_top_drawer': (200, 25),
}


class SimplerSuite(Suite):
    """All visual-matching tasks of one robot, or a single one."""

    name = 'simpler'

    def __init__(self, robot: str, task: str | None = None, seed: int = 7) -> None:
        """Choose what to run; SimplerEnv itself is not imported yet.

        Args:
            robot: ``robot`` of the policy's platform.
            task: a key of :data:`TASKS`; None for all of the robot's.
            seed: first of the seeds that each trial resets its scene with.

        Raises:
            HbvlaError: another robot, unknown task, or a task of the other robot.
        """
        known = {one.tag: one for one in (WIDOWX, GOOGLE)}
        if robot not in known:
            raise HbvlaError(
                f'robot {robot!r}: not in SIMPLER, it has {" and ".join(known)} '
                '(the built-in platform is "bridge")'
            )
        self.robot, self._seed = known[robot], seed
        own = [name for name in TASKS if name.startswith(self.robot.prefix)]
        if task is not None and task not in own:
            raise HbvlaError(
                f'task {task!r}: not one of robot {robot!r}; choose one of {", ".join(own)}'
            )
        self._names = own if task is None else [task]
        self.label = task or f'simpler_{self.robot.prefix}'
        self.step = 1.0 / self.robot.rate
        self.settings = {
            'scenes': 'prepackaged visual matching',
            'success': 'at the end of the episode',
            'action_scale': ACTION_SCALE,
            'sticky_gripper_steps': STICKY_STEPS if self.robot is GOOGLE else 1,
        }

    def fit(self, platform: Platform, keys: Sequence[str]) -> Platform:
        """See :meth:`Suite.fit`; with several datasets, the robot's own is taken."""
        check_platform(platform, self.robot)
        chosen = platform.statistics_key
        if chosen is None and len(keys) == 1:
            chosen = keys[0]
        if chosen is None:
            there = [key for key in self.robot.datasets if key in keys]
            if not there:
                raise HbvlaError(
                    f'dataset_statistics.json has {", ".join(keys)} and none of '
                    f'{", ".join(self.robot.datasets)}; name one in the platform, statistics_key'
                )
            chosen = there[0]
        if chosen not in keys:
            raise HbvlaError(
                f'platform {platform.name}: no statistics of {chosen!r}; the checkpoint has '
                f'{", ".join(keys)}'
            )
        return dataclasses.replace(platform, statistics_key=chosen)

    def tasks(self) -> Sequence[SuiteTask]:
        """See :meth:`Suite.tasks`."""
        there = import_simpler().ENVIRONMENTS
        missing = [name for name in self._names if name not in there]
        if missing:
            raise HbvlaError(
                f'task {missing[0]}: not in the SimplerEnv that is installed; update it'
            )
        order = list(TASKS)
        return [SuiteTask(order.index(name), name, *TASKS[name]) for name in self._names]

    def open(self, task: SuiteTask) -> Scene:
        """See :meth:`Suite.open`."""
        return SimplerScene(import_simpler().make(task.name), task.name, self.robot, self._seed)


def check_platform(platform: Platform, robot: Robot) -> None:
    """Refuse a policy that was not trained for the robot and its camera.

    Raises:
        HbvlaError: naming what does not fit.
    """

    def must(condition: bool, what: str) -> None:
        require(condition, platform, f'SIMPLER with robot {robot.tag!r}', what)

    must(platform.robot == robot.tag, f'trained for robot {platform.robot!r}')
    must(platform.cameras == (robot.camera,), f'cameras {", ".join(platform.cameras)} instead of '
         f'{robot.camera} alone')  # fmt: skip
    must(platform.action_dim == 7, f'{platform.action_dim} action values instead of 7')
    wanted = (0, robot.proprio_dim)
    must(platform.proprio_dim in wanted, f'proprio_dim {platform.proprio_dim} instead of '
         f'{robot.proprio_dim} or 0')  # fmt: skip
    must(not platform.rotate_180, 'rotate_180 is true, but the images are upright')
    must(platform.gripper == 'continuous', f'gripper rule {platform.gripper!r} instead of '
         '"continuous"')  # fmt: skip
    must(abs(platform.step * robot.rate - 1) < 1e-3, f'{platform.step} s a step instead of '
         f'{1 / robot.rate:.3f}')  # fmt: skip


def import_simpler() -> Any:
    """Import SimplerEnv.

    Raises:
        HbvlaError: it or something it needs is not installed.
    """
    try:
        importlib.import_module(OBSERVATIONS)
        return importlib.import_module('simpler_env')
    except ImportError as error:
        raise HbvlaError(f'SimplerEnv is not installed ({error}): {_INSTALL}') from error
