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
    chunks do not join and where a policy trembles. Depends on the rate of the trace, so compare
    traces of one rate only.

    Args:
        trace: commands at even intervals.
        grippers: columns that are no joints and stay out.

    Returns:
        None for fewer than four commands.
    """
    if len(trace) < 4:
        return None
    joints = [column for column in range(trace.commands.shape[1]) if column not in grippers]
    period = float(np.median(np.diff(trace.times)))
    jerk = np.diff(trace.commands[:, joints], n=3, axis=0) / period**3
    return float(np.sqrt((jerk**2).mean()))
