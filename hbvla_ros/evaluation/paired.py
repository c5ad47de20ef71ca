# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Two policies on the same seeds: what the episodes in which they differ say.

Every seed is a pair of outcomes. Seeds that are hard for both policies say nothing about their
difference, so the same number of episodes tells more than two separate success rates would.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.statistics import Interval, wilson_interval


@dataclass(frozen=True)
class Pairs:
    """Seeds counted by the outcome of two policies, the judged one and the reference.

    Attributes:
        both: both succeeded.
        only_first: only the judged policy succeeded.
        only_second: only the reference succeeded.
        neither: both failed.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, first: Mapping[Hashable, bool], second: Mapping[Hashable, bool]) -> Pairs:
        """Count outcomes by seed (or by task and seed).

        Raises:
            HbvlaError: no seeds, or the two do not have the same ones.
        """
        if not first or set(first) != set(second):
            alone = len(set(first) ^ set(second))
            raise HbvlaError(
                f'paired comparison: {alone} of {len(set(first) | set(second))} seeds were run by '
                'one of the two only; run both on the same seeds'
            )
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for key, outcome in first.items():
            counts[bool(outcome), bool(second[key])] += 1
        return cls(*counts.values())

    @property
    def episodes(self) -> int:
        """Number of pairs."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Success rate of the judged policy less that of the reference, -1 to 1."""
        return (self.only_first - self.only_second) / self.episodes

    @property
    def p_value(self) -> float:
        """Two-sided exact McNemar test of equal success rates."""
        return mcnemar_exact(self.only_first, self.only_second)

    @property
    def interval(self) -> Interval:
        """95 % interval of the difference."""
        return newcombe_interval(self)

    def to_json(self) -> dict[str, Any]:
        """Counts, difference, interval and test as plain JSON types."""
        interval = self.interval
        return {
            'episodes': self.episodes,
            'both': self.both,
            'only_this': self.only_first,
            'only_reference': self.only_second,
            'neither': self.neither,
            'difference': self.difference,
            'interval': [interval.low, interval.high],
            'p_value': self.p_value,
        }


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test: is the one policy alone as often successful as the other?

    Under equal success rates the seeds on which the two differ fall to either side as a fair coin
    does. The probability of a split at least as uneven is summed exactly, in whole numbers.

    Args:
        only_first: seeds that only the one policy mastered.
        only_second: seeds that only the other mastered.

    Returns:
        The p-value, 1 where the two never differ.

    Raises:
        HbvlaError: a negative count.
    """
    if only_first < 0 or only_second < 0:
        raise HbvlaError(f'{only_first} and {only_second} seeds: counts are not negative')
    differing = only_first + only_second
    tail = term = 1
    for k in range(min(only_first, only_second)):
        # The next binomial coefficient, which divides without a rest.
        term = term * (differing - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**differing)


def newcombe_interval(pairs: Pairs, confidence: float = 0.95) -> Interval:
    """Newcombe's score interval of a difference of paired rates (his tenth method).

    Joins the Wilson intervals of the two rates and allows for their correlation, with the
    correction for continuity in the correlation. Sound where one of the rates is 0 or 1.

    Args:
        pairs: at least one.
        confidence: between 0 and 1, both excluded.

    Raises:
        HbvlaError: no pairs, or confidence out of range.
    """
    n = pairs.episodes
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    one = wilson_interval(first, n, confidence)
    other = wilson_interval(second, n, confidence)
    rate_one, rate_other, phi = first / n, second / n, _correlation(pairs)

    def spread(left: float, right: float) -> float:
        # Not negative as |phi| <= 1; rounding must not make it so.
        return math.sqrt(max(0.0, left**2 - 2 * phi * left * right + right**2))

    difference = pairs.difference
    low = difference - spread(rate_one - one.low, other.high - rate_other)
    high = difference + spread(one.high - rate_one, rate_other - other.low)
    return Interval(max(-1.0, low), min(1.0, high))


def _correlation(pairs: Pairs) -> float:
    """Correlation of the outcomes, 0 where one policy always succeeds or always fails."""
    n = pairs.episodes
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    product = first * (n - first) * second * (n - second)
    if not product:
        return 0.0
    numerator: float = pairs.both * pairs.neither - pairs.only_first * pairs.only_second
    if numerator > 0:
        numerator = max(numerator - n / 2, 0.0)
    return numerator / math.sqrt(product)


@dataclass(frozen=True)
class Kept:
    """Which part of the reference's success a policy keeps.

    Attributes:
        share: success rate over that of the reference.
        interval: 95 %; the high end may lie above 1.
    """

    share: float
    interval: Interval


def kept_success(pairs: Pairs, confidence: float = 0.95) -> Kept | None:
    """Success over the reference's success, with the interval of Donner and Zou for a ratio.

    As :func:`newcombe_interval` does for a difference, it joins the Wilson intervals of the two
    rates and allows for their correlation, so that a policy which never succeeded in few episodes
    is not said to keep exactly nothing.

    Args:
        pairs: at least one.
        confidence: between 0 and 1, both excluded.

    Returns:
        None where the reference never succeeded, so that there is nothing to keep.

    Raises:
        HbvlaError: no pairs, or confidence out of range.
    """
    n = pairs.episodes
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    one, other = wilson_interval(first, n, confidence), wilson_interval(second, n, confidence)
    if not second:
        return None
    rate, reference, phi = first / n, second / n, _correlation(pairs)
    low = _ratio_limit(rate, reference, one.low, other.high, phi, -1)
    high = _ratio_limit(rate, reference, one.high, other.low, phi, 1)
    return Kept(rate / reference, Interval(max(0.0, low), high))


def _ratio_limit(
    rate: float, reference: float, limit: float, reference_limit: float, phi: float, sign: int
) -> float:
    """One end of the interval of rate over reference, from the far ends of both intervals."""
    divisor = reference_limit * (2 * reference - reference_limit)
    if divisor <= 0:
        # The reference may as well be twice as good: the low end can be anything down to nothing.
        return 0.0
    middle = rate * reference + phi * (limit - rate) * (reference_limit - reference)
    under = middle**2 - limit * (2 * rate - limit) * divisor
    return (middle + sign * math.sqrt(max(under, 0.0))) / divisor
