# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How long processes were ready to run and the kernel let them wait, as it counts that itself."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

_PERIOD = 0.02
# A minute of samples.
_KEPT = 3000
_NANOSECOND = 1e-9


def run_delay(process: int) -> float:
    """Seconds that the main thread of a process has waited for a processor so far.

    0 where the kernel does not count them, or the process is gone.
    """
    try:
        text = Path(f'/proc/{process}/schedstat').read_text(encoding='ascii')
        return int(text.split()[1]) * _NANOSECOND
    except (OSError, IndexError, ValueError):
        return 0.0


class Starvation:
    """Samples the delays of processes on a thread of its own.

    Args:
        processes: gives the process numbers by name, those that run now.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        """Begin."""
        self._processes = processes
        self._samples: deque[tuple[float, dict[int, float]]] = deque(maxlen=_KEPT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='starvation', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD):
            numbers = self._processes().values()
            delays = {number: run_delay(number) for number in numbers}
            self._samples.append((time.monotonic(), delays))

    def waited(self, begin: float, end: float) -> list[float]:
        """Seconds that each process waited between two times on the monotonic clock.

        A process that did not run all the time does not count.
        """
        samples = list(self._samples)
        inside = [set(delays) for at, delays in samples if begin <= at <= end]
        waits = []
        for number in set.intersection(*inside) if inside else ():
            track = [(at, delays[number]) for at, delays in samples if number in delays]
            at, delay = np.array(track).T
            first, last = np.interp([begin, end], at, delay)
            waits.append(max(float(last - first), 0.0))
        return waits

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()
