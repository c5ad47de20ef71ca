# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert that hands the named object over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.experts.two_arms import hand_over
from hbvla_ros.sim.tasks.hand_over import NAMES, HandOverLayout

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation


class HandOverExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state."""
        layout = self._simulation.layout
        assert isinstance(layout, HandOverLayout)
        return hand_over(self._simulation, NAMES[layout.target], 1 - layout.receiver)
