# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a number of successful episodes says about a policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hbvla_ros.errors import HbvlaError


@dataclass(frozen=True)
class Interval:
    """A closed interval of rates, both ends between 0 and 1."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals share at least one point."""
        return self.low <= other.high and other.low <= self.high

    def __contains__(self, rate: float) -> bool:
        """Whether the rate lies in the interval."""
        return self.low <= rate <= self.high


def wilson_interval(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate.

    Unlike the textbook interval around the rate it stays inside 0 to 1 and keeps its width when
    every episode succeeds or every one fails, which is where small policies end up.

    Args:
        successes: successful episodes, 0 to ``episodes``.
        episodes: episodes run, at least 1.
        confidence: between 0 and 1, both excluded.

    Raises:
        HbvlaError: counts or confidence out of range.
    """
    if episodes < 1 or not 0 <= successes <= episodes:
        raise HbvlaError(f'{successes} successes of {episodes} episodes: no success rate')
    if not 0.0 < confidence < 1.0:
        raise HbvlaError(f'confidence {confidence}: give a number between 0 and 1')
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / episodes
    scale = 1 + z * z / episodes
    centre = (rate + z * z / (2 * episodes)) / scale
    spread = rate * (1 - rate) / episodes + z * z / (4 * episodes * episodes)
    half = z * math.sqrt(spread) / scale
    # The ends are exactly 0 and 1 there; rounding errors must not move them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return Interval(low, high)


@dataclass(frozen=True)
class SuccessRate:
    """Successful episodes among all episodes of one condition."""

    successes: int
    episodes: int

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> SuccessRate:
        """Count the outcomes of single episodes."""
        return cls(sum(bool(outcome) for outcome in outcomes), len(outcomes))

    @property
    def rate(self) -> float:
        """Fraction of successful episodes, 0 to 1."""
        if not self.episodes:
            raise HbvlaError('no episode was run: there is no success rate')
        return self.successes / self.episodes

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval."""
        return wilson_interval(self.successes, self.episodes)

    def agrees_with(self, other: SuccessRate) -> bool:
        """Whether the two intervals overlap: the episodes do not tell the two rates apart."""
        return self.interval.overlaps(other.interval)

    def __str__(self) -> str:
        """Such as ``38/40 = 95 % (83 to 99 %)``."""
        low, high = self.interval.low, self.interval.high
        return (
            f'{self.successes}/{self.episodes} = {_percent(self.rate)} % '
            f'({_percent(low)} to {_percent(high)} %)'
        )


def _percent(rate: float) -> int:
    """Nearest whole percent, halves up (``round`` would send 0.125 and 0.135 different ways)."""
    return math.floor(100 * rate + 0.5)


@dataclass(frozen=True)
class Percentiles:
    """Median, 95th percentile and largest of a set of durations in seconds."""

    count: int
    p50: float
    p95: float
    largest: float

    @classmethod
    def of(cls, durations: Sequence[float]) -> Percentiles | None:
        """Summary of the durations in seconds, ``None`` when there are none."""
        if not len(durations):
            return None
        values = np.asarray(durations, dtype=np.float64)
        p50, p95 = np.percentile(values, [50, 95])
        return cls(len(values), float(p50), float(p95), float(values.max()))
