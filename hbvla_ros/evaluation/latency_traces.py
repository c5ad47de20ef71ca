# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Injected inference latencies of a replay: the same trace, the same chunks at the same times.

A replay computes as fast as the machine allows, so how long an inference *takes* in it is said
from outside: a constant, recorded numbers, or numbers drawn with a seed from the distribution that
a median and a 95th percentile tell. Single inferences can be made slow, lost, or endless.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hbvla_ros.errors import HbvlaError

# Standard normal quantile of 0.95.
_Z95 = 1.6448536269514722
_LOST = 'missing'


@dataclass(frozen=True)
class Reply:
    """What becomes of one inference.

    Attributes:
        seconds: from the inference's start to its chunk at the arms; infinite: it never ends, and
            none can start after it.
        lost: it ends then, but no chunk comes of it.
    """

    seconds: float
    lost: bool = False


class LatencySource(Protocol):
    """Gives the reply of each inference in turn."""

    def draw(self, index: int) -> Reply:
        """The reply of inference ``index``, counted from 0; asked for in order."""

    def describe(self) -> str:
        """In a few words, for a report."""


@dataclass(frozen=True)
class Listed:
    """Recorded latencies, from the beginning again after the last; one number is a constant."""

    replies: tuple[Reply, ...]
    name: str

    def draw(self, index: int) -> Reply:
        """The entry of this inference."""
        return self.replies[index % len(self.replies)]

    def describe(self) -> str:
        """Where the numbers are from."""
        return self.name


class Lognormal:
    """Latencies of a median and a 95th percentile in s, drawn with a seed."""

    def __init__(self, p50: float, p95: float, seed: int) -> None:
        """Start before the first draw; ``0 < p50 <= p95``."""
        self._p50, self._p95, self._seed = p50, p95, seed
        self._sigma = math.log(p95 / p50) / _Z95
        self._random = np.random.default_rng(seed)

    def draw(self, index: int) -> Reply:
        """The next draw."""
        return Reply(float(self._p50 * math.exp(self._sigma * self._random.standard_normal())))

    def describe(self) -> str:
        """The two percentiles and the seed."""
        return (
            f'lognormal, median {self._p50:g} s, 95th percentile {self._p95:g} s, seed {self._seed}'
        )


@dataclass(frozen=True)
class Event:
    """The first inference that starts at or after ``at`` (s since the first message) is special."""

    at: float
    reply: Reply

    def describe(self) -> str:
        """In a few words, for a report."""
        what = 'lost' if self.reply.lost else f'{self.reply.seconds:g} s'
        return f'{what} at {self.at:g} s'


class LatencyTrace:
    """A source with events on top.

    Args:
        source: the ordinary latencies.
        events: single inferences that go another way; one inference takes at most one of them.
    """

    def __init__(self, source: LatencySource, events: Sequence[Event] = ()) -> None:
        """Start before the first inference."""
        self._source = source
        self._events = sorted(events, key=lambda event: event.at)
        self._text = source.describe()
        self._index = 0

    def next(self, elapsed: float) -> Reply:
        """The reply of the inference that starts ``elapsed`` s after the first message."""
        ordinary = self._source.draw(self._index)
        self._index += 1
        if not self._events or elapsed < self._events[0].at:
            return ordinary
        special = self._events.pop(0).reply
        # A lost reply takes as long as it would have.
        return Reply(ordinary.seconds, True) if special.lost else special

    def describe(self) -> str:
        """The source, and how many events are still to come at the beginning."""
        return self._text


def parse_latency(text: str, seed: int) -> LatencySource:
    """The source that an option's text names.

    Args:
        text: seconds; ``MEDIAN,P95`` in seconds; or a ``.json`` or ``.csv`` file of latencies.
        seed: of the draws between a median and a 95th percentile.

    Raises:
        HbvlaError: none of these, a number that is no latency, or a file that cannot be read.
    """
    parts = text.split(',')
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return _read(Path(text))
    if not all(math.isfinite(value) and value >= 0.0 for value in values):
        raise HbvlaError(f'--latency {text}: seconds must be numbers from 0 on')
    if len(values) == 1:
        return Listed((Reply(values[0]),), f'{values[0]:g} s, constant')
    if len(values) != 2 or not 0.0 < values[0] <= values[1]:
        raise HbvlaError(
            f'--latency {text}: two numbers are a median and a 95th percentile in s, '
            '0 < median <= percentile; more belong into a .csv or .json file'
        )
    return Lognormal(values[0], values[1], seed)


def parse_spike(text: str) -> Event:
    """``SECONDS@TIME``: a slow inference; ``inf@TIME``: one that never ends.

    Raises:
        HbvlaError: not of this form.
    """
    seconds, _, at = text.partition('@')
    try:
        event = Event(float(at), Reply(float(seconds)))
    except ValueError:
        event = None
    if event is None or not event.reply.seconds >= 0.0 or not 0.0 <= event.at < math.inf:
        raise HbvlaError(f'--spike {text}: write SECONDS@TIME in s, such as 2.0@1.5 or inf@1.5')
    return event


def parse_missing(text: str) -> Event:
    """``TIME``: the reply of the inference that starts then is lost.

    Raises:
        HbvlaError: not a time.
    """
    try:
        at = float(text)
    except ValueError:
        at = -1.0
    if not 0.0 <= at < math.inf:
        raise HbvlaError(f'--missing {text}: write the time in s after the first message')
    return Event(at, Reply(0.0, lost=True))


def _read(path: Path) -> LatencySource:
    """Latencies of a file.

    ``.json`` is a list, or an object with a list ``latencies_s``; ``.csv`` has one in the first
    column of each row, below an optional heading. ``missing`` (JSON also ``null``) is a lost
    reply, ``inf`` one that never ends.
    """
    if path.suffix not in ('.json', '.csv'):
        raise HbvlaError(
            f'--latency {path}: give seconds (0.08), MEDIAN,P95 in s (0.08,0.2), or a .csv or '
            '.json file of latencies'
        )
    try:
        content = path.read_text(encoding='utf-8')
        entries = json.loads(content) if path.suffix == '.json' else _first_column(content)
    except OSError as error:
        raise HbvlaError(f'{path}: cannot read latencies: {error.strerror}') from error
    except ValueError as error:
        raise HbvlaError(f'{path}: not a readable list of latencies ({error})') from error
    if isinstance(entries, dict):
        entries = entries.get('latencies_s')
    if not isinstance(entries, list) or not entries:
        raise HbvlaError(f'{path}: holds no list of latencies in s')
    replies: list[Reply] = []
    for number, entry in enumerate(entries):
        if entry is None or entry == _LOST:
            # As long as the one before: how long something lost took, nobody can say.
            replies.append(Reply(replies[-1].seconds if replies else 0.0, lost=True))
        else:
            replies.append(Reply(_seconds(path, number, entry)))
    return Listed(tuple(replies), f'{len(replies)} latencies of {path.name}')


def _first_column(content: str) -> list[Any]:
    column = [row[0].strip() for row in csv.reader(content.splitlines()) if row and row[0].strip()]
    if column and column[0] != _LOST and not _is_number(column[0]):
        del column[0]  # the heading
    return list(column)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _seconds(path: Path, number: int, entry: Any) -> float:
    try:
        seconds = math.nan if isinstance(entry, bool) else float(entry)
    except (TypeError, ValueError):
        seconds = math.nan
    if not seconds >= 0.0:
        raise HbvlaError(
            f'{path}: entry {number + 1} is {entry!r}; write seconds from 0 on, inf, or {_LOST}'
        )
    return seconds
