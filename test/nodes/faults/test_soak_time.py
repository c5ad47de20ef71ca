# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How a soak counts the robot's time."""

from __future__ import annotations

import pytest

from hbvla_ros.nodes.faults.soak import Soak


class Time:
    """A drill whose robot says these times, s, one after the other."""

    def __init__(self, *seconds):
        self._seconds = iter(seconds)
        self.node = self

    def get_clock(self):
        return self

    def now(self):
        return self

    @property
    def nanoseconds(self):
        return round(next(self._seconds) * 1e9)

    def wait(self, condition, what):
        while not condition():
            pass


@pytest.mark.parametrize(
    'times, elapsed',
    [
        ((1000.0, 1000.0, 1004.0), 4.0),
        ((0.0, 0.0, 1000.0, 1000.0, 1004.0), 4.0),
    ],
)
def test_time_begins_when_the_clock_is_heard(times, elapsed):
    assert Soak(Time(*times), 0, ['NaN action']).elapsed() == pytest.approx(elapsed)


def test_leaps_back_do_not_count():
    soak = Soak(Time(1000.0, 1000.0, 1010.0, 1004.0, 1006.0), 0, ['NaN action'])
    assert [soak.elapsed() for _ in range(3)] == pytest.approx([10.0, 10.0, 12.0])
