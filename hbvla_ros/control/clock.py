# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The chunk clock: overlapping action chunks in, one target at time t out.

Rows are due at absolute times, so which row is executed follows from the time alone and never
from counting how many were: a late chunk is entered where the time says, a lost tick skips
nothing twice. When a chunk takes over, joints fade from the motion before it to the new one;
grippers switch, because smoothing cuts their travel. With nothing to execute there is no
target, and the caller holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.data import ActionChunk

Vector = NDArray[np.float64]

# A clock that steps back by no more than this is jitter between two readers of the same clock.
_BACKWARD_TOLERANCE = 0.02


@dataclass(frozen=True)
class Verdict:
    """What became of an offered chunk; ``reason`` is empty when it was accepted."""

    accepted: bool
    reason: str = ''


@dataclass(frozen=True)
class _Fade:
    """The motion before a take-over: a chunk (or none: a fixed pose) plus a constant offset."""

    since: float
    before: ActionChunk | None
    offset: Vector


class ChunkClock:
    """Turns chunks into targets; plain state, no threads, no clock of its own.

    Args:
        is_gripper: boolean (A,), dimensions that neither fade nor interpolate.
        blend: cross-fade time of the other dimensions in seconds.
        max_future: a chunk that starts later than now plus this many seconds is refused.
    """

    def __init__(
        self, is_gripper: NDArray[np.bool_], blend: float = 0.1, max_future: float = 0.5
    ) -> None:
        """Start without a chunk."""
        self._is_gripper = np.asarray(is_gripper, dtype=bool)
        self._blend, self._max_future = blend, max_future
        self._current: ActionChunk | None = None
        self._pending: ActionChunk | None = None
        self._fade: _Fade | None = None
        self._last_time = -np.inf
        self._instruction: str | None = None
        self.clock_jumps = 0

    @property
    def instruction(self) -> str | None:
        """Instruction of the chunks that are accepted; None accepts every instruction."""
        return self._instruction

    def set_instruction(self, instruction: str) -> None:
        """Accept only chunks of this instruction from now on; a change drops all others."""
        if instruction != self._instruction:
            self.flush()
        self._instruction = instruction

    def flush(self) -> None:
        """Forget every chunk: the next target is a hold."""
        self._current = self._pending = self._fade = None

    def offer(self, chunk: ActionChunk, now: float) -> Verdict:
        """Offer a chunk; an accepted one takes over at its start or, if that is past, at once."""
        reason = self._reason_to_refuse(chunk, now)
        if reason:
            return Verdict(False, reason)
        self._pending = chunk
        return Verdict(True)

    def target(self, now: float, hold: Vector) -> Vector | None:
        """The target (A,) at ``now`` in seconds, or None when the arms should hold.

        Args:
            now: current time on the chunks' clock.
            hold: pose (A,) the arms hold without a target; the first fade starts from it.
        """
        if now < self._last_time - _BACKWARD_TOLERANCE:
            self.clock_jumps += 1
            self.flush()
        self._last_time = now
        if self._pending is not None and now >= self._pending.start:
            self._take_over(self._pending, now, hold)
        if self._current is None or now > _in_force_until(self._current):
            self._current = self._fade = None
            return None
        return self._blended(self._current, now)

    def drained(self, now: float) -> float:
        """Share 0 .. 1 of the newest chunk's time that has passed; 1 without a chunk."""
        chunk = self._pending or self._current
        return 1.0 if chunk is None else drained(chunk.start, chunk.end, now)

    def _reason_to_refuse(self, chunk: ActionChunk, now: float) -> str:
        rows = np.asarray(chunk.actions)
        width = len(self._is_gripper)
        if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != width:
            return f'shape {rows.shape} is not (rows, {width})'
        if not np.isfinite(rows).all():
            return 'not finite'
        if not (np.isfinite([chunk.start, chunk.step]).all() and chunk.step > 0.0):
            return f'times are not increasing (start {chunk.start}, step {chunk.step})'
        if chunk.end < now:
            return f'all rows are past, the last by {now - chunk.end:.3f} s'
        if chunk.start > now + self._max_future:
            return f'starts {chunk.start - now:.3f} s ahead, more than {self._max_future} s'
        if self._instruction is not None and chunk.instruction != self._instruction:
            return f'made for another instruction: {chunk.instruction!r}'
        newest = self._pending or self._current
        if newest is not None and chunk.observation_stamp < newest.observation_stamp:
            return 'its observation is older than that of the present chunk'
        return ''

    def _take_over(self, chunk: ActionChunk, now: float, hold: Vector) -> None:
        """Make the chunk current and fade from what would have been the target without it."""
        before = self._current
        if before is not None and now > _in_force_until(before):
            before = None
        if before is None:
            offset = np.asarray(hold, dtype=np.float64)
        else:
            # Mid-fade the target is off the chunk's rows: keep that distance, so it stays smooth.
            offset = self._blended(before, now) - self._row(before, now)
        self._fade = _Fade(now, before, offset)
        self._current, self._pending = chunk, None

    def _blended(self, chunk: ActionChunk, now: float) -> Vector:
        target = self._row(chunk, now)
        fade = self._fade
        if fade is None or now >= fade.since + self._blend:
            self._fade = None
            return target
        before = fade.offset if fade.before is None else fade.offset + self._row(fade.before, now)
        weight = (now - fade.since) / self._blend
        faded = before + weight * (target - before)
        return np.where(self._is_gripper, target, faded)

    def _row(self, chunk: ActionChunk, now: float) -> Vector:
        """Rows at time ``now``: joints between two rows, grippers the row that is due."""
        rows = np.asarray(chunk.actions, dtype=np.float64)
        position = float(np.clip((now - chunk.start) / chunk.step, 0.0, len(rows) - 1))
        # The clock's own rounding must not delay a row that is due exactly now by a whole row.
        first = min(int(position + 1e-6), len(rows) - 1)
        share = max(position - first, 0.0)
        second = min(first + 1, len(rows) - 1)
        between = rows[first] + share * (rows[second] - rows[first])
        return np.where(self._is_gripper, rows[first], between)


def _in_force_until(chunk: ActionChunk) -> float:
    """The last row, too, is in force for one step: a tick hardly ever meets it exactly."""
    return chunk.end + chunk.step


def drained(start: float, end: float, now: float) -> float:
    """Share 0 .. 1 of the time from ``start`` to ``end`` that has passed at ``now``."""
    if end <= start:
        return 1.0 if now >= start else 0.0
    return min(max((now - start) / (end - start), 0.0), 1.0)
