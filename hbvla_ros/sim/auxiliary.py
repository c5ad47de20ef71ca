# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the images of one instant show, in numbers, for the auxiliary losses of training.

One vector serves all tasks: columns of props that a scene does not hold are marked as unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.arms import ARMS
from hbvla_ros.sim.objects import BUCKET, OBJECTS, Prop
from hbvla_ros.sim.simulation import AlohaSimulation
from hbvla_ros.sim.tasks.registry import find_task, task_names


def _further_props() -> tuple[Prop, ...]:
    """Props of all tasks besides the bucket and the three objects, each once."""
    known = {prop.name: prop for prop in (BUCKET, *OBJECTS)}
    further = {
        prop.name: prop
        for name in task_names()
        for prop in find_task(name).props
        if prop.name not in known
    }
    return tuple(further.values())


_FURTHER = _further_props()
# Bucket, objects and tips came first, with the first task; what other tasks need follows.
AUXILIARY_NAMES = (
    *(f'{kind.name}_{axis}' for kind in OBJECTS for axis in 'xyz'),
    *(f'bucket_{axis}' for axis in 'xyz'),
    *(f'{side}_tip_{axis}' for side in ARMS for axis in 'xyz'),
    *(f'target_is_{kind.name}' for kind in OBJECTS),
    *(f'target_from_{side}_tip_{axis}' for side in ARMS for axis in 'xyz'),
    *(f'{prop.name}_{axis}' for prop in _FURTHER for axis in 'xyz'),
    *(f'target_is_{prop.name}' for prop in _FURTHER),
    *(f'target_goal_from_{side}_tip_{axis}' for side in ARMS for axis in 'xyz'),
)
_UNKNOWN = np.full(3, np.nan)


def auxiliary_targets(simulation: AlohaSimulation) -> NDArray[np.float64]:
    """One value (m or 0/1) for each of ``AUXILIARY_NAMES``; NaN where there is nothing to say.

    Positions of props and tips, which prop is to be moved now, and where it and its goal are as
    seen from each tip. Columns with ``target`` in their name depend on the instruction.
    """
    view, task, layout = simulation.view, simulation.task, simulation.layout
    there = {prop.name for prop in task.props}
    tips = view.tips()
    name, goal = task.target(view, layout), task.goal(view, layout)

    def places(props: tuple[Prop, ...]) -> list[NDArray[np.float64]]:
        return [view.position(one.name) if one.name in there else _UNKNOWN for one in props]

    def chosen(props: tuple[Prop, ...]) -> NDArray[np.float64]:
        return np.array([float(one.name == name) for one in props])

    target = _UNKNOWN if name is None else view.position(name)
    return np.concatenate(
        [
            *places((*OBJECTS, BUCKET)),
            tips.ravel(),
            chosen(OBJECTS),
            (target - tips).ravel(),
            *places(_FURTHER),
            chosen(_FURTHER),
            ((_UNKNOWN if goal is None else goal) - tips).ravel(),
        ]
    )
