# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert for gym-aloha's transfer of a cube."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.experts.two_arms import hand_over
from hbvla_ros.sim.objects import RED_CUBE
from hbvla_ros.sim.tasks.transfer_cube import GIVER

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation


class TransferCubeExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state."""
        return hand_over(self._simulation, RED_CUBE.name, GIVER)
