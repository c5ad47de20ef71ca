# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What tasks and experts read of the scene of now: poses, motion and contacts, by prop name.

Everything follows from the simulator's state, also right after that state was restored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.arms import ARMS
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.objects import Prop

TABLE = 'table'
FINGERS = tuple(f'{side}_gripper_{finger}' for side in ARMS for finger in ARMS)


class SceneView:
    """Reads one model and its data; changes nothing that the next physics step starts from.

    Besides the props, contacts know ``'table'`` and the finger pads ``'left_gripper_left'``,
    ``'left_gripper_right'``, ``'right_gripper_left'``, ``'right_gripper_right'``.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, props: Sequence[Prop]) -> None:
        """Watch ``data`` of a scene that holds ``props``."""
        self._model, self._data = model, data
        self._bodies = {prop.name: int(model.body(prop.name).id) for prop in props}
        self._velocities = {
            prop.name: int(model.joint(f'{prop.name}_joint').dofadr[0])
            for prop in props
            if prop.movable
        }
        self._tips = [model.site(f'tip_{side}').id for side in ARMS]
        self._owners = self._geom_owners()
        self._contacts: set[tuple[str, str]] | None = None

    def _geom_owners(self) -> list[str]:
        """Who owns each geom: a prop, a finger, the table, or '' for the rest."""
        model = self._model
        owners = [''] * model.ngeom
        bodies = {number: name for name, number in self._bodies.items()}
        for geom in range(model.ngeom):
            owners[geom] = bodies.get(int(model.geom_bodyid[geom]), '')
        for side in ARMS:
            for finger in ARMS:
                pad = model.geom(f'vx300s_{side}/{finger}_finger_pad').id
                owners[pad] = f'{side}_gripper_{finger}'
        owners[model.geom('table_plane').id] = TABLE
        return owners

    @property
    def time(self) -> float:
        """Simulated time since the reset, s."""
        return float(self._data.time)

    def position(self, name: str) -> NDArray[np.float64]:
        """(3,) place of a prop's origin, m.

        Raises:
            HbvlaError: no such prop in this scene.
        """
        return np.array(self._data.xpos[self._body(name)])

    def positions(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(n, 3) places of several props, m."""
        return np.array(self._data.xpos[[self._body(name) for name in names]])

    def rotation(self, name: str) -> NDArray[np.float64]:
        """(3, 3) turn of a prop; its columns are the prop's axes in the world."""
        return np.array(self._data.xmat[self._body(name)]).reshape(3, 3)

    def velocity(self, name: str) -> NDArray[np.float64]:
        """(6,) motion of a prop: m/s in the world's axes, then rad/s in its own; 0 if fixed."""
        self._body(name)
        if name not in self._velocities:
            return np.zeros(6)
        first = self._velocities[name]
        return np.array(self._data.qvel[first : first + 6])

    def tips(self) -> NDArray[np.float64]:
        """(2, 3) grasp points of the left and the right gripper, m."""
        return np.array(self._data.site_xpos[self._tips])

    def tip_rotations(self) -> NDArray[np.float64]:
        """(2, 3, 3) turns of the grippers: x points along the fingers, y from finger to finger."""
        return np.array(self._data.site_xmat[self._tips]).reshape(2, 3, 3)

    def touching(self, first: str, second: str) -> bool:
        """Whether two things are in contact: props, ``'table'`` or single fingers.

        Raises:
            HbvlaError: one of them is not in this scene.
        """
        for name in (first, second):
            if name != TABLE and name not in FINGERS:
                self._body(name)
        if self._contacts is None:
            self._contacts = self._find_contacts()
        return (first, second) in self._contacts

    def touched_by(self, name: str, arm: int) -> bool:
        """Whether at least one finger of arm 0 (left) or 1 (right) touches a prop."""
        return any(self.touching(name, f'{ARMS[arm]}_gripper_{finger}') for finger in ARMS)

    def grasped_by(self, name: str, arm: int) -> bool:
        """Whether both fingers of arm 0 (left) or 1 (right) touch a prop."""
        return all(self.touching(name, f'{ARMS[arm]}_gripper_{finger}') for finger in ARMS)

    def refresh(self) -> None:
        """Say that the state has changed: contacts are found again when they are next read."""
        self._contacts = None

    def _find_contacts(self) -> set[tuple[str, str]]:
        # Those in the data are of the state before the last physics step, and after a restore of
        # another instant altogether.
        mujoco.mj_collision(self._model, self._data)
        found: set[tuple[str, str]] = set()
        for first, second in self._data.contact.geom:
            one, two = self._owners[first], self._owners[second]
            found |= {(one, two), (two, one)}
        return found

    def _body(self, name: str) -> int:
        try:
            return self._bodies[name]
        except KeyError:
            raise HbvlaError(
                f'prop {name!r}: not in this scene, which holds {", ".join(self._bodies)}'
            ) from None
