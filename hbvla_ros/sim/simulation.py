# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The simulated robot: two arms, three cameras, absolute joint targets at a control rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import arms, scene
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.objects import OBJECTS
from hbvla_ros.sim.tasks import pick_place

if TYPE_CHECKING:
    from hbvla_ros.sim.rendering import SceneRenderer

ACTION_SIZE = 14
START_ARM = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0])
START_ACTION = np.concatenate([START_ARM, [1.0], START_ARM, [1.0]])
START_NOISE = 0.1  # rad
_GRIPPER_SPAN = arms.GRIPPER_OPEN - arms.GRIPPER_CLOSED
_ARM_COLUMNS = np.array([0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12])
_ARM_JOINTS = np.array([0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13])
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class SavedState:
    """Everything that decides the future of a simulation; opaque to callers."""

    physics: NDArray[np.float64]
    layout: pick_place.Layout
    inside_since: float | None
    best_stage: int
    touched: bool


class AlohaSimulation:
    """Two ViperX arms that face each other across a table.

    Not safe for use from several threads, and rendering belongs to one thread for good.

    Args:
        camera_size: height and width of rendered images, pixels.
        control_rate: commands per second; a whole number of 2 ms physics steps.

    Raises:
        HbvlaError: no assets, or a rate the physics step does not divide.
    """

    def __init__(self, camera_size: int = 128, control_rate: float = 25.0) -> None:
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
        self.model = scene.build_model()
        self.data = mujoco.MjData(self.model)
        self._substeps = round(substeps)
        self._renderer: SceneRenderer | None = None
        self._object_bodies = [self.model.body(kind.name).id for kind in OBJECTS]
        self._object_joints = [
            int(self.model.joint(f'{kind.name}_joint').qposadr[0]) for kind in OBJECTS
        ]
        self._tip_sites = [self.model.site(f'tip_{side}').id for side in arms.ARMS]
        self._bucket_mocap = int(self.model.body('bucket').mocapid[0])
        self._state_size = mujoco.mj_stateSize(self.model, _STATE)
        self.reset(0)

    # Setting up

    def reset(
        self, seed: int, task_name: str = 'pick_place', joints: ArrayLike | None = None
    ) -> None:
        """Start an episode: the seed decides places, target and start pose.

        Args:
            seed: any non-negative number; see ``seeds`` for the reserved ranges.
            task_name: only ``'pick_place'`` so far.
            joints: (14,) start pose instead of the seed's.

        Raises:
            HbvlaError: unknown task, negative seed, wrong pose.
        """
        if task_name != 'pick_place':
            raise HbvlaError(f'task {task_name!r}: unknown; the only task is pick_place')
        if seed < 0:
            raise HbvlaError(f'seed {seed}: must not be negative')
        random = np.random.default_rng(seed)
        self.layout = pick_place.sample_layout(random)
        start = START_ACTION.copy()
        start[_ARM_COLUMNS] += random.uniform(-START_NOISE, START_NOISE, 12)
        start[[6, 13]] = random.uniform(0.7, 1.0, 2)
        if joints is not None:
            start = _checked(joints)
        mujoco.mj_resetData(self.model, self.data)
        self.data.mocap_pos[self._bucket_mocap] = self.layout.bucket
        for number, address in enumerate(self._object_joints):
            yaw = self.layout.yaws[number]
            self.data.qpos[address : address + 3] = self.layout.objects[number]
            self.data.qpos[address + 3 : address + 7] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        self.command(start)
        self.data.qpos[:16] = self.data.ctrl
        self._inside_since: float | None = None
        self._best_stage = 0
        self._touched = False
        mujoco.mj_forward(self.model, self.data)

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

    def _track(self) -> None:
        positions = self.object_positions()
        bucket = self.bucket_position()
        if not pick_place.done(positions, bucket, self.layout.target):
            self._inside_since = None
        elif self._inside_since is None:
            self._inside_since = self.time
        if not self._touched:
            target = positions[self.layout.target]
            moved = np.abs(target - self.layout.objects[self.layout.target]).max() > 0.01
            near = np.abs(self.tip_positions() - target).max(axis=1).min() < 0.025
            self._touched = bool(moved or near)
        now = pick_place.stage(positions, bucket, self.layout, self._touched)
        self._best_stage = max(self._best_stage, now)

    # Reading

    @property
    def time(self) -> float:
        """Simulated time since the reset, s."""
        return float(self.data.time)

    @property
    def instruction(self) -> str:
        """The sentence of this episode."""
        return self.layout.instruction

    @property
    def target(self) -> int:
        """Number of the object that is asked for, an index into ``objects.OBJECTS``."""
        return self.layout.target

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

    def object_positions(self) -> NDArray[np.float64]:
        """(3, 3) centres of the objects, m, in the order of ``objects.OBJECTS``."""
        return np.array(self.data.xpos[self._object_bodies])

    def bucket_position(self) -> NDArray[np.float64]:
        """(3,) centre of the bucket's bottom, m."""
        return np.array(self.data.mocap_pos[self._bucket_mocap])

    def tip_positions(self) -> NDArray[np.float64]:
        """(2, 3) grasp points of the left and the right gripper, m."""
        return np.array(self.data.site_xpos[self._tip_sites])

    def success(self) -> bool:
        """Whether the named object, and no other, lies in the bucket and has stayed there."""
        since = self._inside_since
        return since is not None and self.time - since > pick_place.STAY_SECONDS - 1e-6

    def stage(self) -> int:
        """Furthest progress of this episode, an index into ``pick_place.STAGES``."""
        return self._best_stage

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
        physics = np.empty(self._state_size)
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        return SavedState(physics, self.layout, self._inside_since, self._best_stage, self._touched)

    def restore_state(self, state: SavedState) -> None:
        """Return to a remembered instant of this simulation."""
        mujoco.mj_setState(self.model, self.data, state.physics, _STATE)
        self.layout = state.layout
        self._inside_since = state.inside_since
        self._best_stage = state.best_stage
        self._touched = state.touched
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
