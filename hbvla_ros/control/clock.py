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

from hbvla_ros.control.latency import LatencyTracker
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]
Chunks = tuple[ActionChunk, ...]

# A clock that steps back by no more than this is jitter between two readers of the same clock.
_BACKWARD_TOLERANCE = 0.02
# A longer chunk is one with a wrong step: nobody's policy looks so far ahead, in s.
_LONGEST = 20.0
# More chunks are not averaged, so that a flood of them does not make the tick late.
_MOST_AVERAGED = 64


@dataclass(frozen=True)
class Verdict:
    """What became of an offered chunk.

    Attributes:
        accepted: whether it will be executed.
        reason: why not, empty when it was accepted.
        row: the row that was due when it was offered, where it is entered.
    """

    accepted: bool
    reason: str = ''
    row: int = 0


@dataclass(frozen=True)
class _Fade:
    """The motion before a take-over: chunks (or none: a fixed pose) plus a constant offset."""

    since: float
    before: Chunks
    offset: Vector


class ChunkClock:
    """Turns chunks into targets; plain state, no threads, no clock of its own.

    ``copy.copy`` gives an independent clock, to ask it about times to come.

    Args:
        is_gripper: boolean (A,), dimensions that neither fade nor interpolate.
        blend: cross-fade time of the other dimensions in seconds.
        max_future: a chunk that starts later than now plus this many seconds is refused.
        ensemble: None executes the newest chunk. A number averages all accepted chunks in force,
            joints only: the i-th oldest weighs ``exp(-ensemble * i)``, as ACT does it. 0 weighs
            them equally, above 0 the older ones more.

    Attributes:
        clock_jumps: how often the time went back, which drops all chunks.
        latency: seconds from the observation to the offer of each chunk that was not refused for
            what is in it; the first does not count, it may have been a warm-up.
    """

    def __init__(
        self,
        is_gripper: NDArray[np.bool_],
        blend: float = 0.1,
        max_future: float = 0.5,
        ensemble: float | None = None,
    ) -> None:
        """Start without a chunk.

        Raises:
            HbvlaError: ``ensemble`` is negative or not finite.
        """
        if ensemble is not None and not 0.0 <= ensemble < np.inf:
            raise HbvlaError(f'ensemble is {ensemble}; give a number from 0 on, such as 0.01')
        self._is_gripper = np.asarray(is_gripper, dtype=bool)
        self._blend, self._max_future, self._ensemble = blend, max_future, ensemble
        self._active: Chunks = ()
        self._waiting: Chunks = ()
        self._fade: _Fade | None = None
        self._last_time = -np.inf
        self._instruction: str | None = None
        self.clock_jumps = 0
        self.latency = LatencyTracker()

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
        self._active = self._waiting = ()
        self._fade = None

    def offer(self, chunk: ActionChunk, now: float) -> Verdict:
        """Offer a chunk; an accepted one takes over at its start or, if that is past, at once.

        A chunk of another checkpoint drops those of the one before: they are never mixed.
        """
        self._notice(now)
        reason = self._fault(chunk, now)
        if reason:
            return Verdict(False, reason)
        self.latency.add(now - chunk.observation_stamp)
        if chunk.end < now:
            return Verdict(False, f'all rows are past, the last by {now - chunk.end:.3f} s')
        newest = self._newest()
        if newest is not None and chunk.observation_stamp < newest.observation_stamp:
            return Verdict(False, 'its observation is older than that of the present chunk')
        if newest is not None and chunk.checkpoint != newest.checkpoint:
            self.flush()
        # A chunk that never began is worth nothing once there is a newer one, unless all count.
        waiting = self._waiting if self._ensemble is not None else ()
        self._waiting = (*waiting, chunk)[-_MOST_AVERAGED:]
        return Verdict(
            True,
            row=min(int(max(now - chunk.start, 0.0) / chunk.step + 1e-6), len(chunk.actions) - 1),
        )

    def target(self, now: float, hold: Vector) -> Vector | None:
        """The target (A,) at ``now`` in seconds, or None when the arms should hold.

        Args:
            now: current time on the chunks' clock.
            hold: pose (A,) the arms hold without a target; the first fade starts from it.
        """
        if not np.isfinite(now):
            return None
        self._notice(now)
        due = tuple(chunk for chunk in self._waiting if chunk.start <= now)
        self._waiting = tuple(chunk for chunk in self._waiting if chunk.start > now)
        # Without an ensemble the newest takes over from whatever was there.
        kept = self._active if self._ensemble is not None or not due else ()
        in_force = tuple(chunk for chunk in (*kept, *due) if now <= _in_force_until(chunk))
        in_force = _with_rows_left(in_force, now) or in_force[-1:]
        if [id(chunk) for chunk in in_force] != [id(chunk) for chunk in self._active]:
            self._take_over(in_force[-_MOST_AVERAGED:], now, hold)
        return self._blended(now) if self._active else None

    def goal(self, now: float) -> Vector | None:
        """What the target (A,) at ``now`` is without the fade; to be asked after the target."""
        return self._mean(self._active, now) if self._active else None

    def drained(self, now: float) -> float:
        """Share 0 .. 1 of the newest chunk's time that has passed; 1 without a chunk."""
        chunk = self._newest()
        return 1.0 if chunk is None else drained(chunk.start, chunk.end, now)

    def _newest(self) -> ActionChunk | None:
        chunks = (*self._active, *self._waiting)
        return chunks[-1] if chunks else None

    def _notice(self, now: float) -> None:
        """Drop everything if the clock went back: no row is due when it says."""
        if not np.isfinite(now):
            return
        if now < self._last_time - _BACKWARD_TOLERANCE:
            self.clock_jumps += 1
            self.flush()
            self._last_time = now
        self._last_time = max(self._last_time, now)

    def _fault(self, chunk: ActionChunk, now: float) -> str:
        """What is wrong with the chunk itself, empty if nothing is."""
        rows = np.asarray(chunk.actions)
        width, length = len(self._is_gripper), chunk.end - chunk.start
        if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != width:
            return f'shape {rows.shape} is not (rows, {width})'
        if not np.isfinite(rows).all():
            return 'not finite'
        times = [chunk.start, chunk.step, chunk.observation_stamp, now]
        if not (np.isfinite(times).all() and chunk.step > 0.0):
            return f'times are not increasing (start {chunk.start}, step {chunk.step})'
        if not length <= _LONGEST:
            return f'lasts {length:.4g} s, more than {_LONGEST} s: a wrong step'
        ahead = max(chunk.start, chunk.observation_stamp) - now
        if ahead > self._max_future:
            return f'starts {ahead:.3f} s ahead, more than {self._max_future} s'
        if self._instruction is not None and chunk.instruction != self._instruction:
            return f'made for another instruction: {chunk.instruction!r}'
        return ''

    def _take_over(self, chunks: Chunks, now: float, hold: Vector) -> None:
        """Make chunks current and fade from what would have been the target without the change."""
        before = self._active
        if not any(now <= _in_force_until(chunk) for chunk in before):
            before = ()
        before = _with_rows_left(before, now) or before
        if before:
            # Mid-fade the target is off the chunk's rows: keep that distance, so it stays smooth.
            offset = self._blended(now) - self._mean(before, now)
        else:
            offset = np.asarray(hold, dtype=np.float64)
        self._fade = _Fade(now, before, offset) if chunks else None
        self._active = chunks

    def _blended(self, now: float) -> Vector:
        target, fade = self._mean(self._active, now), self._fade
        if fade is None or now >= fade.since + self._blend:
            self._fade = None
            return target
        before = fade.offset + self._mean(fade.before, now) if fade.before else fade.offset
        weight = max(now - fade.since, 0.0) / self._blend
        faded = before + weight * (target - before)
        return np.where(self._is_gripper, target, faded)

    def _mean(self, chunks: Chunks, now: float) -> Vector:
        """The row due of each chunk, averaged; grippers do what the newest says."""
        newest = self._row(chunks[-1], now)
        if len(chunks) == 1 or self._ensemble is None:
            return newest
        weights = np.exp(-self._ensemble * np.arange(len(chunks)))
        rows = np.stack([*(self._row(chunk, now) for chunk in chunks[:-1]), newest])
        return np.where(self._is_gripper, newest, weights @ rows / weights.sum())

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


def _with_rows_left(chunks: Chunks, now: float) -> Chunks:
    """The row that a chunk ended with says nothing of now, where others have a row for it."""
    return tuple(chunk for chunk in chunks if now <= chunk.end)


def drained(start: float, end: float, now: float) -> float:
    """Share 0 .. 1 of the time from ``start`` to ``end`` that has passed at ``now``."""
    if end <= start:
        return 1.0 if now >= start else 0.0
    return min(max((now - start) / (end - start), 0.0), 1.0)
