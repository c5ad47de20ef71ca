# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Memory of processes over time, and whether it grows."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_PERIOD = 1.0
_KIBIBYTE, _MEGABYTE = 1024, 1e6
# Caches and histories fill after a start, s.
_WARM_UP = 60.0
_HOUR = 3600.0
# Slower growth, in MB an hour, would take days to matter.
FLAT = 10.0
# In less time, s, growth of one process cannot be told from what comes and goes.
_ENOUGH = 180.0


def resident(process: int) -> float | None:
    """Anonymous resident memory of a process in MB (10^6 bytes); None if it is gone.

    Pages of libraries do not count: they come when a line runs for the first time, and go when the
    machine needs their room.
    """
    try:
        status = Path(f'/proc/{process}/status').read_text(encoding='ascii', errors='replace')
        return int(status.split('RssAnon:')[1].split()[0]) * _KIBIBYTE / _MEGABYTE
    except (OSError, IndexError, ValueError):
        return None


@dataclass(frozen=True)
class Growth:
    """Memory of one program over all of its processes.

    Attributes:
        name: the program.
        processes: how many ran long enough to count.
        seconds: for how long those ran after their warm-up, together.
        first, last, largest: MB; the first after its warm-up.
        slope: MB an hour inside processes; None where there is too little to say.
        half_width: of its interval of 95 %.
    """

    name: str
    processes: int
    seconds: float
    first: float
    last: float
    largest: float
    slope: float | None
    half_width: float | None

    @property
    def grows(self) -> bool:
        """Whether it surely grows by more than :data:`FLAT`."""
        if self.slope is None or self.half_width is None:
            return False
        return self.slope - self.half_width > FLAT


class MemoryTrack:
    """Samples memory once a second on a thread of its own.

    Args:
        processes: gives the process numbers by name, those that run now.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        """Begin."""
        self._processes = processes
        self._samples: dict[str, dict[int, list[tuple[float, float]]]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='memory', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD):
            for name, number in self._processes().items():
                used = resident(number)
                if used is not None:
                    track = self._samples.setdefault(name, {}).setdefault(number, [])
                    track.append((time.monotonic(), used))

    def close(self) -> list[Growth]:
        """End the thread and sum up, one entry a program."""
        self._stopping.set()
        self._thread.join()
        return [_sum_up(name, tracks) for name, tracks in sorted(self._samples.items())]


def _sum_up(name: str, tracks: Mapping[int, list[tuple[float, float]]]) -> Growth:
    warm = [
        [(at, used) for at, used in track if at - track[0][0] > _WARM_UP]
        for track in tracks.values()
    ]
    warm = [track for track in warm if track and track[-1][0] - track[0][0] > _ENOUGH]
    every = [used for track in tracks.values() for _, used in track]
    found = growth(warm)
    slope, half = (None, None) if found is None else (found[0] * _HOUR, found[1] * _HOUR)
    return Growth(
        name,
        len(warm),
        sum(track[-1][0] - track[0][0] for track in warm),
        warm[0][0][1] if warm else every[0],
        warm[-1][-1][1] if warm else every[-1],
        max(every),
        slope,
        half,
    )


def growth(
    series: Sequence[Sequence[tuple[float, float]]],
) -> tuple[float, float] | None:
    """How fast a quantity grows inside several stretches, with half the width of its interval.

    One slope for all stretches, each with a level of its own, by least squares. The interval is
    of 95 % and takes the deviations as independent.

    Args:
        series: stretches of (time, value).

    Returns:
        Slope and half-width per unit of time; None with fewer than three values too many.
    """
    stretches = [np.array(one, dtype=np.float64) for one in series if len(one) > 1]
    count = sum(len(one) for one in stretches)
    spare = count - len(stretches) - 1
    if spare < 3:
        return None
    parts = [one - one.mean(axis=0) for one in stretches]
    times, values = np.concatenate(parts).T
    spread = float(times @ times)
    slope = float(times @ values) / spread
    rest = values - slope * times
    error = math.sqrt(float(rest @ rest) / spare / spread)
    # Student's t for 95 %, close enough from three degrees of freedom on.
    return slope, error * (1.96 + 2.4 / spare + 5.0 / spare**2)
