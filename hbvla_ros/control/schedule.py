# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""When to ask the policy for the next chunk."""

from __future__ import annotations

import numpy as np

from hbvla_ros.control.clock import drained
from hbvla_ros.data import ActionChunk


class InferenceSchedule:
    """The next inference starts while the present chunk still runs.

    Args:
        replan_fraction: share 0 .. 1 of the present chunk's time after which it is due.
        period: time in s between two starts instead; 0 goes by the fraction.
    """

    def __init__(self, replan_fraction: float, period: float = 0.0) -> None:
        """Start without a chunk: an inference is due at once."""
        self._fraction, self._period = replan_fraction, period
        self.forget()

    def forget(self) -> None:
        """Nothing is known about what the arms execute, so an inference is due at once."""
        self._chunk: ActionChunk | None = None
        self._started = self._reference = -np.inf

    def start(self, now: float, reference: float) -> None:
        """An inference on images of time ``reference`` has started at ``now``, in s."""
        self._started, self._reference = now, reference

    def accept(self, chunk: ActionChunk) -> None:
        """The chunk that the arms were sent last."""
        self._chunk = chunk

    def is_new(self, reference: float) -> bool:
        """Whether images of time ``reference`` in s show more than the last inference saw."""
        return reference > self._reference

    def is_due(self, now: float, latency: float | None = None) -> bool:
        """Whether the next inference should start at ``now`` in s.

        Args:
            now: current time on the chunks' clock.
            latency: how long a chunk takes from its images to the arms in s, measured, best a high
                percentile; None while unknown. By the fraction it is due sooner when the present
                chunk would run out before the next one is there.
        """
        if now < self._started:
            # The clock went back: what is known about the present chunk no longer holds.
            self.forget()
        if self._period > 0.0:
            return now - self._started >= self._period
        chunk = self._chunk
        if chunk is None or drained(chunk.start, chunk.end, now) >= self._fraction:
            return True
        return latency is not None and chunk.end - now <= latency
