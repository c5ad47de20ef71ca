# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the safety stage will let through in the next control periods, if nothing changes.

Controllers that take trajectories are sent commands before they are due. They must be those that
the stage would give then, so the stage itself, which is a pure function, is run ahead of time on a
robot that follows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.safety import SafetyStage, SafetyState

Vector = NDArray[np.float64]
Targets = Callable[[float, Vector], 'Vector | None']


def no_targets(now: float, hold: Vector) -> None:
    """The targets of somebody who holds."""


def look_ahead(
    stage: SafetyStage, state: SafetyState, now: float, rows: int, targets: Targets
) -> Vector:
    """Commands (rows, A) that follow the present one, a period apart.

    Args:
        stage: the robot's limits.
        state: after the command of ``now``; there must have been one. It is left as it is.
        now: time in s of that command.
        rows: how many, 1 or more.
        targets: gives the target (A,) at a time in s from what would be held then, or None; it is
            asked in the order of time.
    """
    assert state.command is not None
    commands = []
    for index in range(1, rows + 1):
        at = now + index * stage.period
        hold = stage.hold(state, state.command)
        assert hold is not None
        command, state = stage.command(state, targets(at, hold), state.command, at)
        assert command is not None
        commands.append(command)
    return np.array(commands)
