# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How long inference takes, as a percentile over the recent past."""

from __future__ import annotations

import math
from collections import deque

import numpy as np


class LatencyTracker:
    """Keeps the last measurements; old ones leave, so one bad moment is forgotten in time.

    Args:
        window: how many measurements count.
        warm_up: how many first ones are thrown away; they include compilation and first touches.
    """

    def __init__(self, window: int = 50, warm_up: int = 1) -> None:
        """Start empty."""
        self._values: deque[float] = deque(maxlen=window)
        self._warm_up = warm_up
        self._seen = 0

    def add(self, seconds: float) -> None:
        """Add one measurement in seconds; a negative or non-finite one is ignored."""
        if not math.isfinite(seconds) or seconds < 0.0:
            return
        self._seen += 1
        if self._seen > self._warm_up:
            self._values.append(seconds)

    def percentile(self, percent: float) -> float | None:
        """Percentile in seconds of the window, None before the first counted measurement."""
        return float(np.percentile(self._values, percent)) if self._values else None

    @property
    def count(self) -> int:
        """Measurements counted in the window."""
        return len(self._values)
