# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""When messages of a topic arrived."""

from __future__ import annotations

import time
from collections.abc import Callable


class Arrivals:
    """Counts messages on the monotonic clock; the time before the first one does not count.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has arrived."""
        self._clock = clock
        self._count, self._first, self._last, self._end = 0, 0.0, 0.0, 0.0
        self.longest_gap = float('inf')

    def add(self) -> None:
        """A message is here."""
        now = self._clock()
        if self._count == 0:
            self._first, self.longest_gap = now, 0.0
        else:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._count, self._last = self._count + 1, now

    def end(self) -> None:
        """No more are waited for; a silence until now counts as a gap."""
        self._end = self._clock()
        if self._count:
            self.longest_gap = max(self.longest_gap, self._end - self._last)

    @property
    def rate(self) -> float:
        """Messages per second from the first until the end, 0 before the second."""
        span = max(self._end, self._last) - self._first
        return (self._count - 1) / span if self._count > 1 and span > 0.0 else 0.0
