# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Progress of a quantization as numbers that another thread can read, and its cancel flag."""

from __future__ import annotations

import threading
import time
from typing import Any

from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.quantizing import Cancelled


class ProgressState:
    """What the pipeline tells it, kept for whoever asks; ends the pipeline when cancelled.

    Attributes:
        message: one line on the state as a whole.
    """

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.message = ''
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._stage, self._step, self._steps = '', 0, 0
        self._layer = ''
        self._error: float | None = None
        self._bytes = self._weights = 0
        self._since = time.monotonic()

    def cancel(self) -> None:
        """Let the pipeline end at its next step."""
        self._cancelled.set()

    def stage(self, title: str, steps: int) -> None:
        """A new stage of so many steps begins."""
        self._end_if_cancelled()
        with self._lock:
            self._stage, self._step, self._steps = title, 0, steps
            self._since = time.monotonic()

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """One step is done; a quantized layer comes with its entry."""
        with self._lock:
            self._step += 1
            if entry is not None:
                error = entry.hessian_error
                self._layer = name
                self._error = entry.relative_error if error is None else error
                self._bytes += entry.bytes
                self._weights += entry.rows * entry.columns
        self._end_if_cancelled()

    def snapshot(self) -> dict[str, Any]:
        """Stage, step, steps, layer, error, stored_bits, seconds_left, message."""
        with self._lock:
            left = None
            if 0 < self._step < self._steps:
                elapsed = time.monotonic() - self._since
                left = round(elapsed / self._step * (self._steps - self._step))
            return {
                'stage': self._stage,
                'step': self._step,
                'steps': self._steps,
                'layer': self._layer,
                'error': self._error,
                'stored_bits': 8 * self._bytes / self._weights if self._weights else None,
                'seconds_left': left,
                'message': self.message,
            }

    def _end_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled('cancelled; start again with resume to go on')
