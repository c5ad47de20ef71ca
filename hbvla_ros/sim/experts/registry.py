# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The expert of each task, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hbvla_ros.sim.experts.base import Expert
from hbvla_ros.sim.experts.hand_over import HandOverExpert
from hbvla_ros.sim.experts.insertion import InsertionExpert
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.experts.sequence import SequenceExpert
from hbvla_ros.sim.experts.stack import StackExpert
from hbvla_ros.sim.experts.transfer_cube import TransferCubeExpert

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

_EXPERTS: dict[str, Callable[[AlohaSimulation], Expert]] = {
    'pick_place': PickPlaceExpert,
    'sequence': SequenceExpert,
    'stack': StackExpert,
    'hand_over': HandOverExpert,
    'transfer_cube': TransferCubeExpert,
    'insertion': InsertionExpert,
}


def make_expert(simulation: AlohaSimulation) -> Expert:
    """The expert of the task that ``simulation`` is set to; make another after a change of task."""
    return _EXPERTS[simulation.task.name](simulation)
