# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The red cube from the right arm to the left: gym-aloha's ``AlohaTransferCube-v0``.

The cube starts anywhere in gym-aloha's box, unturned as there, and stages 0 to 4 are its rewards.
Success asks for more than its full reward, see ``hand_over.follow``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import RED_CUBE
from hbvla_ros.sim.tasks.base import Layout, Task, standing_poses
from hbvla_ros.sim.tasks.hand_over import STAGES, HandOverProgress, follow, held_place

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

GIVER = 1  # the right arm
BOX_X = (0.0, 0.2)  # m
BOX_Y = (0.4, 0.6)


class TransferCube(Task[Layout, HandOverProgress]):
    """One cube on the right half of the table."""

    name = 'transfer_cube'
    stages = STAGES
    max_seconds = 20.0
    props = (RED_CUBE,)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The only sentence: everything else about this task is fixed as well."""
        return ('pick up the red cube with the right arm and transfer it to the left arm',)

    def sample(self, random: np.random.Generator) -> Layout:
        """Draw the place of the cube."""
        place = np.array([[random.uniform(*BOX_X), random.uniform(*BOX_Y)]])
        return Layout(self.instructions[0], standing_poses(self.props, place, np.zeros(1)))

    def start(self, layout: Layout) -> HandOverProgress:
        """Nothing has been touched."""
        return HandOverProgress()

    def track(
        self, view: SceneView, layout: Layout, progress: HandOverProgress
    ) -> HandOverProgress:
        """Look at who touches the cube."""
        return follow(view, RED_CUBE.name, GIVER, progress)

    def target(self, view: SceneView, layout: Layout) -> str:
        """The cube."""
        return RED_CUBE.name

    def goal(self, view: SceneView, layout: Layout) -> NDArray[np.float64]:
        """Where the left arm holds it in the end."""
        return np.array(held_place(1 - GIVER))
