# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The simulated robot: two arms, three cameras, absolute joint targets at a control rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import arms, scene
from hbvla_ros.sim.arms import ACTION_SIZE, START_ACTION
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.objects import Prop
from hbvla_ros.sim.tasks.base import Layout, Progress, Task
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task
from hbvla_ros.sim.view import SceneView

if TYPE_CHECKING:
    from hbvla_ros.sim.rendering import SceneRenderer

START_NOISE = 0.1  # rad
_GRIPPER_SPAN = arms.GRIPPER_OPEN - arms.GRIPPER_CLOSED
_ARM_COLUMNS = np.array([0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12])
_ARM_JOINTS = np.array([0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13])
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class SavedState:
    """Everything that decides the future of a simulation; opaque to callers."""

    task: Task[Any, Any]
    physics: NDArray[np.float64]
    layout: Layout
    progress: Progress


class _Scene:
    """The compiled scene of one set of props, with a state of its own."""

    def __init__(self, props: tuple[Prop, ...]) -> None:
        self.model = scene.build_model(props)
        self.data = mujoco.MjData(self.model)
        self.view = SceneView(self.model, self.data, props)
        self.state_size = mujoco.mj_stateSize(self.model, _STATE)
        # Of each prop: where its pose begins in the joint positions, or which mocap body it is.
        self._joints = [
            int(self.model.joint(f'{prop.name}_joint').qposadr[0]) if prop.movable else None
            for prop in props
        ]
        self._mocaps = [int(self.model.body(prop.name).mocapid[0]) for prop in props]

    def place(self, poses: NDArray[np.float64]) -> None:
        """Put every prop where a layout wants it: poses (props, 7)."""
        for pose, joint, mocap in zip(poses, self._joints, self._mocaps, strict=True):
            if joint is None:
                self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = pose[:3], pose[3:]
            else:
                self.data.qpos[joint : joint + 7] = pose


class AlohaSimulation:
    """Two ViperX arms that face each other across a table.

    Not safe for use from several threads, and rendering belongs to one thread for good.

    Args:
        camera_size: height and width of rendered images, pixels.
        control_rate: commands per second; a whole number of 2 ms physics steps.
        task: name of the first task.

    Attributes:
        task: the task of this episode.
        layout: what the seed decided.
        model: the MuJoCo model of the task's scene; another one after a change of task.
        data: its state.
        view: what tasks and experts read of it.

    Raises:
        HbvlaError: no assets, an unknown task, or a rate the physics step does not divide.
    """

    def __init__(
        self, camera_size: int = 128, control_rate: float = 25.0, task: str = DEFAULT_TASK
    ) -> None:
        """Build the scene and reset to seed 0."""
        if camera_size < 1 or camera_size > 960:
            raise HbvlaError(f'camera_size {camera_size}: must be 1 to 960 pixels')
        substeps = 1.0 / (control_rate * scene.TIMESTEP) if control_rate > 0 else 0.0
        if substeps < 1 or abs(substeps - round(substeps)) > 1e-6:
            raise HbvlaError(
                f'control_rate {control_rate}: the period must be a multiple of '
                f'{scene.TIMESTEP} s; try 25 or 50'
            )
        self.camera_size = camera_size
        self.control_rate = control_rate
        self._substeps = round(substeps)
        self._renderer: SceneRenderer | None = None
        self._scenes: dict[tuple[Prop, ...], _Scene] = {}
        self._scene: _Scene
        self.model: mujoco.MjModel
        self.data: mujoco.MjData
        self.view: SceneView
        self.task: Task[Any, Any] = find_task(task)
        self._enter(self.task)
        self.reset(0)

    # Setting up

    def reset(
        self, seed: int, task_name: str | None = None, joints: ArrayLike | None = None
    ) -> None:
        """Start an episode: the seed decides places, instruction and start pose.

        Args:
            seed: any non-negative number; see ``seeds`` for the reserved ranges.
            task_name: another task from now on; None stays with the present one. Another set of
                props means another model, which is built once and kept.
            joints: (14,) start pose instead of the seed's.

        Raises:
            HbvlaError: unknown task, negative seed, wrong pose.
        """
        task = self.task if task_name is None else find_task(task_name)
        if seed < 0:
            raise HbvlaError(f'seed {seed}: must not be negative')
        random = np.random.default_rng(seed)
        layout = task.sample(random)
        start = START_ACTION.copy()
        start[_ARM_COLUMNS] += random.uniform(-START_NOISE, START_NOISE, 12)
        start[[6, 13]] = random.uniform(0.7, 1.0, 2)
        if joints is not None:
            start = _checked(joints)
        self._enter(task)
        self.layout: Layout = layout
        mujoco.mj_resetData(self.model, self.data)
        self._scene.place(layout.poses)
        self.command(start)
        self.data.qpos[:16] = self.data.ctrl
        self._progress: Progress = task.start(layout)
        mujoco.mj_forward(self.model, self.data)
        self.view.refresh()

    def _enter(self, task: Task[Any, Any]) -> None:
        """Make the scene of a task the present one."""
        if task.props not in self._scenes:
            self._scenes[task.props] = _Scene(task.props)
        chosen = self._scenes[task.props]
        if self._renderer is not None and chosen is not self._scene:
            # A graphics context belongs to one model.
            self.close()
        self.task, self._scene = task, chosen
        self.model, self.data, self.view = chosen.model, chosen.data, chosen.view

    # Moving

    def command(self, action: ArrayLike) -> None:
        """Set the joint targets, held until the next command.

        Args:
            action: (14,) left arm 6 rad, left gripper 0 (closed) to 1 (open), right arm the
                same. Values beyond the joint limits are clipped, as a servo would.

        Raises:
            HbvlaError: wrong length or a value that is not finite.
        """
        action = _checked(action)
        control = self.data.ctrl
        control[_ARM_JOINTS] = action[_ARM_COLUMNS]
        for column, actuator in ((6, 6), (13, 14)):
            slide = arms.GRIPPER_CLOSED + min(max(action[column], 0.0), 1.0) * _GRIPPER_SPAN
            control[actuator] = slide
            control[actuator + 1] = -slide

    def step(self) -> None:
        """Run one control period."""
        mujoco.mj_step(self.model, self.data, self._substeps)
        self._refresh()
        self._track()

    def advance(self, seconds: float) -> None:
        """Run the physics for ``seconds``, rounded to whole 2 ms steps."""
        mujoco.mj_step(self.model, self.data, max(1, round(seconds / scene.TIMESTEP)))
        self._refresh()
        self._track()

    def _refresh(self) -> None:
        # A physics step leaves positions of the previous instant behind; cameras and the expert
        # want those of now. Nothing that the next step starts from is touched.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self.view.refresh()

    def _track(self) -> None:
        self._progress = self.task.track(self.view, self.layout, self._progress)

    # Reading

    @property
    def time(self) -> float:
        """Simulated time since the reset, s."""
        return float(self.data.time)

    @property
    def instruction(self) -> str:
        """The sentence of this episode."""
        return self.layout.instruction

    def joint_positions(self) -> NDArray[np.float64]:
        """(14,) measured positions in the order and units of a command."""
        measured = np.empty(ACTION_SIZE)
        measured[_ARM_COLUMNS] = self.data.qpos[_ARM_JOINTS]
        for column, joint in ((6, 6), (13, 14)):
            opening = 0.5 * (self.data.qpos[joint] - self.data.qpos[joint + 1])
            measured[column] = (opening - arms.GRIPPER_CLOSED) / _GRIPPER_SPAN
        return measured

    def joint_velocities(self) -> NDArray[np.float64]:
        """(14,) measured velocities, rad/s and gripper spans/s."""
        measured = np.empty(ACTION_SIZE)
        measured[_ARM_COLUMNS] = self.data.qvel[_ARM_JOINTS]
        for column, joint in ((6, 6), (13, 14)):
            rate = 0.5 * (self.data.qvel[joint] - self.data.qvel[joint + 1])
            measured[column] = rate / _GRIPPER_SPAN
        return measured

    def tip_positions(self) -> NDArray[np.float64]:
        """(2, 3) grasp points of the left and the right gripper, m."""
        return self.view.tips()

    def success(self) -> bool:
        """Whether the task is done and has stayed done for the moment it asks for."""
        return self.task.success(self._progress, self.time)

    def stage(self) -> int:
        """Furthest progress of this episode, an index into the task's ``stages``."""
        return self.task.stage(self._progress)

    def render(
        self, size: tuple[int, int] | None = None, cameras: tuple[str, ...] = scene.CAMERAS
    ) -> dict[str, NDArray[np.uint8]]:
        """Images of now.

        Args:
            size: height and width in pixels; None uses ``camera_size``.
            cameras: names; ``scene.VIDEO_CAMERA`` is one more, for people.

        Returns:
            Camera name to (H, W, 3) RGB.

        Raises:
            HbvlaError: unknown camera, size over 960x1280, or no rendering backend.
        """
        if self._renderer is None:
            from hbvla_ros.sim.rendering import SceneRenderer

            self._renderer = SceneRenderer(self.model)
        height, width = size or (self.camera_size, self.camera_size)
        return {name: self._renderer.render(self.data, name, height, width) for name in cameras}

    # Branching

    def save_state(self) -> SavedState:
        """Remember this instant, to the last bit that matters for the future."""
        physics = np.empty(self._scene.state_size)
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        return SavedState(self.task, physics, self.layout, self._progress)

    def restore_state(self, state: SavedState) -> None:
        """Return to a remembered instant of this simulation, whichever task it was in."""
        self._enter(state.task)
        mujoco.mj_setState(self.model, self.data, state.physics, _STATE)
        self.layout, self._progress = state.layout, state.progress
        self._refresh()

    def close(self) -> None:
        """Free the graphics context; the simulation itself stays usable."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _checked(action: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(action, dtype=np.float64)
    if array.shape != (ACTION_SIZE,):
        raise HbvlaError(f'command has shape {array.shape}: must be ({ACTION_SIZE},)')
    if not np.isfinite(array).all():
        raise HbvlaError('command is not finite: NaN or infinity among the joint targets')
    return array
