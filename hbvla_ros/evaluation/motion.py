# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How smoothly an episode was commanded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hbvla_ros.evaluation.episode import Trace

GRIPPERS = (6, 13)


def jerk_rms(trace: Trace, grippers: tuple[int, ...] = GRIPPERS) -> float | None:
    """Root mean square of the jerk of the commanded joint targets, rad/s^3.

    The third difference of the commands over the cube of the control period: it grows where
    chunks do not join and where a policy trembles. It is taken from the commands as they were sent:
    read at the times of measurements of another rate they would be a staircase. Depends on the
    control rate.

    Args:
        trace: commands as they were sent, or rows at even intervals.
        grippers: columns that are no joints and stay out.

    Returns:
        None for fewer than four commands.
    """
    commands = trace.commands if trace.sent is None else trace.sent
    if len(commands) < 4:
        return None
    joints = [column for column in range(commands.shape[1]) if column not in grippers]
    period = trace.control_period or float(np.median(np.diff(trace.times)))
    jerk = np.diff(commands[:, joints], n=3, axis=0) / period**3
    return float(np.sqrt((jerk**2).mean()))
