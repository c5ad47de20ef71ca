# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The chunk clock, case by case."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.control.clock import ChunkClock, drained
from hbvla_ros.data import ActionChunk

IS_GRIPPER = np.array([False, True])
HOLD = np.array([5.0, 0.5])


def chunk(rows, start=10.0, step=0.1, stamp=None, instruction='go'):
    return ActionChunk(
        np.asarray(rows, dtype=float),
        start,
        step,
        start if stamp is None else stamp,
        instruction,
        'test',
    )


def ramp(count=11, first=0.0, slope=1.0, start=10.0, gripper=0.0, **more):
    rows = [[first + slope * i, gripper] for i in range(count)]
    return chunk(rows, start=start, **more)


def clock(blend=0.0, **more):
    return ChunkClock(IS_GRIPPER, blend=blend, **more)


def test_without_a_chunk_there_is_no_target():
    assert clock().target(1.0, HOLD) is None


def test_rows_are_indexed_by_time_and_joints_interpolated():
    unit = clock()
    assert unit.offer(ramp(), 10.0).accepted
    assert unit.target(10.0, HOLD)[0] == pytest.approx(0.0)
    assert unit.target(10.34, HOLD)[0] == pytest.approx(3.4)
    # Ticks that never came change nothing.
    assert unit.target(10.91, HOLD)[0] == pytest.approx(9.1)


def test_a_late_chunk_is_entered_at_the_row_that_is_due():
    unit = clock()
    assert unit.offer(ramp(), 10.52).accepted
    assert unit.target(10.52, HOLD)[0] == pytest.approx(5.2)


def test_grippers_take_the_row_that_is_due_and_do_not_fade():
    unit = clock(blend=1.0)
    unit.offer(chunk([[0, 0], [0, 1], [0, 1]]), 10.0)
    assert unit.target(10.0, HOLD)[1] == 0.0
    assert unit.target(10.09, HOLD)[1] == 0.0
    assert unit.target(10.1, HOLD)[1] == 1.0


def test_rows_due_exactly_now_survive_rounding():
    unit = clock()
    rows = [[0.0, i] for i in range(50)]
    start, step = 1234567.1, 0.04
    unit.offer(chunk(rows, start=start, step=step), start)
    for row in range(50):
        assert unit.target(start + row * step, HOLD)[1] == row


def test_take_over_fades_joints_from_the_old_motion():
    unit = clock(blend=0.2)
    unit.offer(ramp(slope=0.0, first=1.0), 10.0)
    unit.target(10.0, HOLD)
    unit.target(10.3, HOLD)
    unit.offer(ramp(slope=0.0, first=3.0, start=10.2, gripper=1.0), 10.4)
    values = [unit.target(10.4 + 0.05 * i, HOLD) for i in range(6)]
    np.testing.assert_allclose([v[0] for v in values], [1.0, 1.5, 2.0, 2.5, 3.0, 3.0])
    assert all(v[1] == 1.0 for v in values)


def test_take_over_in_the_middle_of_a_fade_does_not_jump():
    unit = clock(blend=0.2)
    unit.offer(ramp(slope=0.0, first=0.0), 10.0)
    unit.target(10.0, np.zeros(2))
    unit.offer(ramp(slope=0.0, first=1.0, start=10.1), 10.1)
    unit.target(10.1, HOLD)
    assert unit.target(10.2, HOLD)[0] == pytest.approx(0.5)
    unit.offer(ramp(slope=0.0, first=-1.0, start=10.15), 10.2)
    assert unit.target(10.2, HOLD)[0] == pytest.approx(0.5)
    assert unit.target(10.5, HOLD)[0] == pytest.approx(-1.0)


def test_first_chunk_fades_from_the_hold():
    unit = clock(blend=0.2)
    unit.offer(ramp(slope=0.0, first=1.0), 10.0)
    assert unit.target(10.0, HOLD)[0] == pytest.approx(5.0)
    assert unit.target(10.1, HOLD)[0] == pytest.approx(3.0)
    assert unit.target(10.2, HOLD)[0] == pytest.approx(1.0)


def test_after_the_end_comes_the_hold():
    unit = clock()
    unit.offer(ramp(), 10.0)
    assert unit.target(11.0, HOLD)[0] == pytest.approx(10.0)
    # The last row is in force for one step, like every other.
    assert unit.target(11.09, HOLD)[0] == pytest.approx(10.0)
    assert unit.target(11.11, HOLD) is None


def test_chunk_of_the_near_future_waits_for_its_start():
    unit = clock()
    unit.offer(ramp(slope=0.0, first=1.0), 10.0)
    unit.target(10.0, HOLD)
    unit.offer(ramp(slope=0.0, first=2.0, start=10.4), 10.2)
    assert unit.target(10.3, HOLD)[0] == 1.0
    assert unit.target(10.4, HOLD)[0] == 2.0


@pytest.mark.parametrize(
    'offered, reason',
    [
        (ramp(start=8.0), 'all rows are past, the last by 1.000 s'),
        (ramp(start=10.6), 'starts 0.600 s ahead, more than 0.5 s'),
        (chunk([[0.0, np.nan]]), 'not finite'),
        (chunk([[0.0, np.inf]]), 'not finite'),
        (chunk([[0.0]]), r'shape (1, 1) is not (rows, 2)'),
        (chunk(np.zeros((0, 2))), r'shape (0, 2) is not (rows, 2)'),
        (ramp(step=0.0), 'times are not increasing'),
        (ramp(start=float('nan')), 'times are not increasing'),
        (ramp(stamp=1.0), 'older than that of the present chunk'),
        (ramp(instruction='stop'), "another instruction: 'stop'"),
    ],
)
def test_refusals_have_a_reason_and_keep_the_present_chunk(offered, reason):
    unit = clock()
    unit.set_instruction('go')
    assert unit.offer(ramp(slope=0.0, first=7.0, start=9.9), 10.0).accepted
    verdict = unit.offer(offered, 10.0)
    assert not verdict.accepted and reason in verdict.reason
    assert unit.target(10.0, HOLD)[0] == 7.0


def test_another_instruction_flushes():
    unit = clock()
    unit.set_instruction('go')
    unit.offer(ramp(), 10.0)
    unit.set_instruction('go')
    assert unit.target(10.1, HOLD) is not None
    unit.set_instruction('stop')
    assert unit.target(10.2, HOLD) is None


def test_clock_that_goes_back_holds_until_a_new_chunk():
    unit = clock()
    unit.offer(ramp(), 10.5)
    unit.target(10.5, HOLD)
    assert unit.target(10.1, HOLD) is None
    assert unit.clock_jumps == 1
    unit.offer(ramp(), 10.1)
    assert unit.target(10.1, HOLD) is not None


def test_clock_that_leaps_ahead_holds():
    unit = clock()
    unit.offer(ramp(), 10.0)
    unit.target(10.0, HOLD)
    assert unit.target(99.0, HOLD) is None


def test_drained_share():
    unit = clock()
    assert unit.drained(0.0) == 1.0
    unit.offer(ramp(), 10.0)
    assert unit.drained(10.5) == pytest.approx(0.5)
    assert unit.drained(9.0) == 0.0 and unit.drained(12.0) == 1.0
    assert drained(1.0, 1.0, 1.0) == 1.0
