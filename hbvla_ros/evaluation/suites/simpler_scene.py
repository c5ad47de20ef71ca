# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One SimplerEnv task: its two robots, what they feel and how they are commanded."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.evaluation.suites import rotations
from hbvla_ros.evaluation.suites.base import Scene, Values

# The module that knows the evaluation camera of each robot.
OBSERVATIONS = 'simpler_env.utils.env.observation_utils'
# Real rotation deltas and positions: OpenVLA's policies scale neither.
ACTION_SCALE = 1.0
# A change of the gripper counts from here on, and is commanded for so many steps.
GRIPPER_CHANGE, STICKY_STEPS = 0.5, 15
# Bridge data gives the gripper's orientation relative to one that points straight down.
_POINTING_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Robot:
    """One of the two robots.

    Attributes:
        prefix: how the names of its tasks begin.
        tag: ``robot`` of a platform that was trained for it.
        camera: the one camera of such a platform.
        proprio_dim: width of its proprioception.
        rate: control steps a second.
        datasets: keys of its statistics, the first one that is there is taken.
    """

    prefix: str
    tag: str
    camera: str
    proprio_dim: int
    rate: float
    datasets: tuple[str, ...]


WIDOWX = Robot('widowx', 'bridge', 'image_0', 7, 5.0, ('bridge_orig', 'bridge_dataset'))
GOOGLE = Robot('google_robot', 'google_robot', 'image', 8, 3.0, ('fractal20220817_data',))

_CAN_PLACES = [
    (x, y) for x in np.linspace(-0.35, -0.12, 5) for y in np.linspace(-0.02, 0.42, 5)
]  # fmt: skip


class SimplerScene(Scene):
    """One task in ManiSkill2."""

    def __init__(self, environment: Any, task: str, robot: Robot, seed: int) -> None:
        """Wrap an environment that was just made."""
        self._environment, self._task, self._robot, self._seed = environment, task, robot, seed
        # Wrappers pass only Gymnasium's own methods on, depending on its version.
        self._inner = environment.unwrapped
        self._gripper = StickyGripper()
        self._seen: dict[str, Any] = {}

    @property
    def instruction(self) -> str:
        """The task in words; two-part tasks change it when the second part begins."""
        return str(self._inner.get_language_instruction())

    def start(self, trial: int) -> None:
        """Lay the scene out for a trial."""
        self._gripper = StickyGripper()
        self._seen, _ = self._environment.reset(
            seed=self._seed + trial, options=layout(self._task, trial)
        )

    def observe(self) -> tuple[dict[str, NDArray[np.uint8]], Values]:
        """The evaluation camera's frame, and the pose of the gripper in the robot's base frame."""
        package = importlib.import_module(OBSERVATIONS)
        image = package.get_image_from_maniskill2_obs_dict(self._inner, self._seen)
        # Not from the observation, in which the drawer tasks have no pose of the tool.
        base, tool = self._inner.agent.base_pose, self._inner.tcp.pose
        openness = 1.0 - min(float(self._inner.agent.get_gripper_closedness()), 1.0)
        proprioception = gripper_pose(
            self._robot, np.append(base.p, base.q), np.append(tool.p, tool.q), openness
        )
        return {self._robot.camera: np.ascontiguousarray(image)}, proprioception

    def act(self, action: Values) -> tuple[bool, bool]:
        """Position delta, rotation delta as axis angle, gripper; over when the time is up."""
        before = self.instruction
        if self._robot is GOOGLE:
            gripper = self._gripper(action[6])
        else:
            gripper = 1.0 if action[6] > 0.5 else -1.0
        command = np.concatenate(
            [
                ACTION_SCALE * action[:3],
                ACTION_SCALE * rotations.axis_angle_of_roll_pitch_yaw(action[3:6]),
                [gripper],
            ]
        )
        self._seen, _, success, truncated, _ = self._environment.step(command)
        if self.instruction != before:
            self._gripper = StickyGripper()
        return bool(success), bool(truncated)

    def close(self) -> None:
        """End the simulator."""
        self._environment.close()


class StickyGripper:
    """Google's gripper takes changes: +1 closes, -1 opens, 0 stays.

    The policy's gripper is a state, 1 open and 0 closed. A change of more than a half starts a
    command that is repeated for 15 steps, because the real gripper needs as long.
    """

    def __init__(self) -> None:
        """Begin an episode."""
        self._state: float | None = None
        self._command, self._left = 0.0, 0

    def __call__(self, state: float) -> float:
        """Command of this step for the policy's gripper state of this step."""
        change = 0.0 if self._state is None else float(self._state - state)
        self._state = float(state)
        if abs(change) > GRIPPER_CHANGE and not self._left:
            self._command, self._left = change, STICKY_STEPS
        if not self._left:
            return change
        self._left -= 1
        return self._command


def layout(task: str, trial: int) -> dict[str, Any]:
    """Options of a reset: the trial's place in the published grid, or none for the seed's own."""
    if task.startswith(WIDOWX.prefix) or task == 'google_robot_move_near':
        return {'obj_init_options': {'episode_id': trial}}
    if task.endswith('coke_can'):
        return {'obj_init_options': {'init_xy': list(_CAN_PLACES[trial])}}
    return {}


def gripper_pose(robot: Robot, base: Values, tool: Values, openness: float) -> Values:
    """Proprioception of the robot's data set.

    Bridge (7,): position, roll, pitch and yaw relative to pointing down, openness 0 to 1.
    Google (8,): position, quaternion (x, y, z, w), closedness 0 to 1.

    Args:
        robot: whose convention.
        base: pose of the base in the world (7,): position in m, quaternion (w, x, y, z).
        tool: pose of the tool centre, likewise.
        openness: of the gripper, 0 closed to 1 open.
    """
    base_rotation = rotations.matrix_of_wxyz(base[3:])
    position = base_rotation.T @ (np.asarray(tool[:3]) - np.asarray(base[:3]))
    rotation = base_rotation.T @ rotations.matrix_of_wxyz(tool[3:])
    if robot is WIDOWX:
        angles = rotations.roll_pitch_yaw_of_matrix(rotation @ _POINTING_DOWN.T)
        return np.concatenate([position, angles, [openness]])
    return np.concatenate([position, rotations.xyzw_of_matrix(rotation), [1.0 - openness]])
