# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the safety stage will let through in the next control periods, if nothing changes.

Controllers that take trajectories are sent commands before they are due. They must be those that
the stage would give then, so the stage itself, which is a pure function, is run ahead of time on a
robot that follows. Behind them comes the stage's own way to rest: a controller that hears no more
ends there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.safety import SafetyStage, SafetyState

Vector = NDArray[np.float64]
# From s ahead of now and the pose that would be held to the target and the goal (A,), or None.
Targets = Callable[[float, Vector], 'tuple[Vector | None, Vector | None]']

# Targets are followed this far ahead, s, but in no more periods: each costs a turn of the stage.
_FOLLOWED = 0.16
_FEWEST, _MOST = 2, 8


def no_targets(ahead: float, hold: Vector) -> tuple[None, None]:
    """The targets of somebody who holds."""
    return None, None


def look_ahead(
    stage: SafetyStage, state: SafetyState, targets: Targets, horizon: float
) -> tuple[Vector, int]:
    """Commands (K, A) that follow the present one, a period apart, the last at rest.

    Args:
        stage: the robot's limits.
        state: after the present command; there must have been one. It is left as it is.
        targets: asked in the order of time, and no more once it has none.
        horizon: s within which the arms should be at rest. Where braking from the present speed
            takes longer than that they are not, but then as few targets as possible are followed.

    Returns:
        The commands, and how many of them follow targets; the others brake.
    """
    assert state.command is not None
    commands: list[Vector] = []
    for index in range(1, _targets_within(stage, state, horizon) + 1):
        hold = stage.hold(state, state.command)
        assert hold is not None
        target, goal = targets(index * stage.period, hold)
        if target is None or state.stop:
            break
        at = state.time + stage.period
        command, state = stage.command(state, target, state.command, at, goal)
        assert command is not None
        commands.append(command)
    assert state.command is not None
    rest = state.command[np.newaxis] if state.path is None else state.path
    return np.vstack([*commands, rest]), len(commands)


def _targets_within(stage: SafetyStage, state: SafetyState, horizon: float) -> int:
    wanted = min(max(round(_FOLLOWED / stage.period), _FEWEST), _MOST)
    braking = 0
    if state.path is not None:
        moving = np.flatnonzero((state.path != state.path[-1]).any(axis=1))
        braking = int(moving[-1]) + 2 if len(moving) else 0
    return max(min(wanted, round(horizon / stage.period) - braking), _FEWEST)
