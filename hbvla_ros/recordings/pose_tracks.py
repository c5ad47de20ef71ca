# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A pose over time, put together from messages that each tell a part of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]

# Poses farther apart in time than this, s, say nothing about the time between them.
_LONGEST_GAP = 0.5
# Times of day in s, as floats, are this exact.
_ROUNDING = 1e-6


@dataclass
class Track:
    """Some dimensions of a pose over time.

    Attributes:
        columns: which dimensions.
        times: when each value was due, s, increasing.
        values: (n,) each, joints in rad and grippers as ratios.
    """

    columns: tuple[int, ...]
    times: list[float] = field(default_factory=list)
    values: list[Vector] = field(default_factory=list)

    def add(self, times: Sequence[float], values: Vector) -> None:
        """Take values; they replace what was due from the first of them on.

        That is what a controller does with a new trajectory, and what is left of the past after
        a clock was set back.
        """
        keep = bisect_left(self.times, times[0])
        del self.times[keep:], self.values[keep:]
        self.times.extend(times)
        self.values.extend(values)


class PoseTracks:
    """Tracks that together are the pose of one robot.

    Args:
        tracks: no dimension is in two of them.
        is_gripper: boolean (A,).
    """

    def __init__(self, tracks: Sequence[Track], is_gripper: NDArray[np.bool_]) -> None:
        """Keep the tracks; they may still grow."""
        self._tracks, self._is_gripper = tracks, is_gripper

    def at(self, times: ArrayLike) -> Vector:
        """Poses (T, A) at times in s; NaN where nothing is known.

        Between two values joints are interpolated; a gripper has the last one.
        """
        times = np.asarray(times, dtype=np.float64)
        poses = np.full((len(times), len(self._is_gripper)), np.nan)
        for track in self._tracks:
            if not track.times:
                continue
            known, values = np.array(track.times), np.array(track.values)
            before = np.searchsorted(known, times + _ROUNDING, side='right') - 1
            after = np.minimum(before + 1, len(known) - 1)
            # Nothing is known before the first value, after the last, and in long gaps.
            near = (after > before) & (known[after] - known[before] <= _LONGEST_GAP)
            valid = (before >= 0) & (near | (np.abs(times - known[before]) <= _ROUNDING))
            for index, column in enumerate(track.columns):
                joint = values[:, index]
                held = joint[np.maximum(before, 0)]
                between = np.interp(times, known, joint)
                chosen = held if self._is_gripper[column] else between
                poses[:, column] = np.where(valid, chosen, np.nan)
        return poses
