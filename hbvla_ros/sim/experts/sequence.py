# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A memoryless expert for two objects in order: pick and place, with a place for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.experts.pick_place import Delivery, put_into_bucket
from hbvla_ros.sim.objects import BUCKET
from hbvla_ros.sim.tasks.pick_place import INSIDE_HALF

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

_RESTING = 0.02  # m/s
_TOLERANCE = 0.012  # m


class SequenceExpert:
    """Commands for both arms, from the state of a simulation."""

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Watch ``simulation``; nothing else is remembered."""
        self._simulation = simulation

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state."""
        simulation = self._simulation
        view, task, layout = simulation.view, simulation.task, simulation.layout
        name = task.target(view, layout)
        if name is None:
            return put_into_bucket(simulation, None)
        position = view.position(name)
        aside = np.abs(position - view.position(BUCKET.name))[:2].max()
        still = float(np.linalg.norm(view.velocity(name)[:3])) < _RESTING
        stuck = bool(aside < INSIDE_HALF and still)
        delivery = Delivery(position, task.goal(view, layout), _TOLERANCE, stuck)
        return put_into_bucket(simulation, delivery)
