# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The chunk clock, case by case."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from hbvla_ros.control.clock import ChunkClock, drained
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError

IS_GRIPPER = np.array([False, True])
HOLD = np.array([5.0, 0.5])


def chunk(rows, start=10.0, step=0.1, stamp=None, instruction='go', checkpoint='test'):
    return ActionChunk(
        np.asarray(rows, dtype=float),
        start,
        step,
        start if stamp is None else stamp,
        instruction,
        checkpoint,
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
    verdict = unit.offer(ramp(), 10.52)
    assert verdict.accepted and verdict.row == 5
    assert unit.target(10.52, HOLD)[0] == pytest.approx(5.2)
    assert unit.offer(ramp(start=10.6), 10.52).row == 0


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
        (ramp(start=9.7, count=3), 'all rows are past, the last by 0.100 s'),
        (ramp(step=2.1), 'lasts 21 s, more than 20.0 s: a wrong step'),
        (ramp(step=1e308), 'more than 20.0 s'),
        (ramp(stamp=float('nan')), 'times are not increasing'),
        (ramp(stamp=99.0), 'starts 89.000 s ahead'),
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


def test_a_chunk_is_welcome_before_the_first_tick_after_the_clock_went_back():
    unit = clock()
    unit.offer(ramp(start=500.0), 500.0)
    unit.target(500.0, HOLD)
    assert unit.offer(ramp(start=10.0), 10.0).accepted and unit.clock_jumps == 1
    assert unit.target(10.2, HOLD)[0] == pytest.approx(2.0)


def test_two_readers_of_one_clock_are_no_jump_but_many_small_steps_back_are():
    unit = clock()
    unit.offer(ramp(), 10.1)
    unit.target(10.1, HOLD)
    assert unit.target(10.09, HOLD) is not None and unit.target(10.081, HOLD) is not None
    assert unit.target(10.07, HOLD) is None and unit.clock_jumps == 1


@pytest.mark.parametrize('now', [np.nan, np.inf, -np.inf])
def test_a_time_that_is_none_changes_nothing(now):
    unit = clock()
    unit.offer(ramp(), 10.0)
    assert unit.target(now, HOLD) is None and not unit.offer(ramp(), now).accepted
    assert unit.target(10.1, HOLD)[0] == pytest.approx(1.0) and unit.clock_jumps == 0


def test_simulated_time_that_stands_gives_the_same_target_again():
    unit = clock(blend=0.3)
    unit.offer(ramp(start=0.0), 0.0)
    unit.target(0.0, HOLD)
    first = unit.target(0.12, HOLD)
    for _ in range(3):
        np.testing.assert_array_equal(unit.target(0.12, HOLD), first)


def test_another_checkpoint_drops_the_chunks_of_the_one_before():
    """Between the two the arms hold; nothing of the old motion is in the new one."""
    for ensemble in (None, 0.0):
        unit = clock(blend=0.2, ensemble=ensemble)
        unit.offer(ramp(slope=0.0, first=1.0), 10.0)
        unit.target(10.0, HOLD)
        unit.offer(ramp(slope=0.0, first=3.0, start=10.5, checkpoint='other'), 10.4)
        assert unit.target(10.4, HOLD) is None
        assert unit.target(10.5, HOLD)[0] == HOLD[0]
        assert unit.target(10.6, HOLD)[0] == pytest.approx((HOLD[0] + 3.0) / 2)
        assert unit.target(10.7, HOLD)[0] == 3.0


def test_goal_is_the_target_without_the_fade():
    unit = clock(blend=0.2)
    assert unit.goal(10.0) is None
    unit.offer(ramp(slope=0.0, first=1.0, gripper=1.0), 10.0)
    assert unit.target(10.0, HOLD).tolist() == [HOLD[0], 1.0]
    assert unit.goal(10.0).tolist() == [1.0, 1.0]
    assert unit.target(12.0, HOLD) is None and unit.goal(12.0) is None


def test_a_copy_looks_ahead_without_moving_the_clock_on():
    unit = clock(blend=0.2)
    unit.offer(ramp(), 10.0)
    before = unit.target(10.0, HOLD)
    ahead = copy.copy(unit)
    assert ahead.target(10.5, HOLD)[0] == pytest.approx(5.0)
    assert ahead.target(12.0, HOLD) is None
    np.testing.assert_array_equal(unit.target(10.0, HOLD), before)
    assert unit.target(10.1, HOLD)[0] == pytest.approx(3.0)  # half-way from the hold to row 1


def test_latency_is_measured_without_the_warm_up():
    unit = clock()
    unit.offer(ramp(start=8.5), 9.5)
    assert unit.latency.percentile(95) is None
    unit.offer(ramp(start=10.0), 10.3)
    unit.offer(ramp(start=10.1), 10.4)
    # One that comes too late has been slow as well; a wrong one says nothing.
    unit.offer(ramp(start=10.1), 12.4)
    unit.offer(chunk([[0.0, np.nan]], start=10.0), 12.4)
    assert unit.latency.percentile(50) == pytest.approx(0.3) and unit.latency.count == 3
    assert unit.latency.percentile(100) == pytest.approx(2.3)


def test_ensemble_averages_all_chunks_in_force_the_oldest_most():
    unit, k = clock(ensemble=0.5), 0.5
    for index, first in enumerate((1.0, 2.0, 4.0)):
        unit.offer(ramp(slope=0.0, first=first, start=10.0 + 0.1 * index), 10.3)
    weights = np.exp(-k * np.arange(3))
    expected = weights @ [1.0, 2.0, 4.0] / weights.sum()
    assert unit.target(10.3, HOLD)[0] == pytest.approx(expected)
    # The oldest ends at 11.0; only the last one of all is in force for one step more.
    assert unit.target(10.99, HOLD)[0] == pytest.approx(expected)
    assert unit.target(11.05, HOLD)[0] == pytest.approx(
        weights[:2] @ [2.0, 4.0] / weights[:2].sum()
    )
    assert unit.target(11.15, HOLD)[0] == pytest.approx(4.0)
    assert unit.target(11.25, HOLD)[0] == pytest.approx(4.0)
    assert unit.target(11.35, HOLD) is None


@pytest.mark.parametrize('weight', [0.0, 1.0])
def test_an_ensemble_of_chunks_that_agree_is_what_they_agree_on(weight):
    """Also while one of them ends: its last row, now past, must not draw the arms back."""
    unit = clock(blend=0.1, ensemble=weight)
    for tick in range(200):
        now = 10.0 + 0.02 * tick
        if tick % 5 == 0:
            unit.offer(ramp(slope=0.1, first=now, start=now), now)
        target = unit.target(now, HOLD)
        # After the first fade; and a tick comes up to 0.02 s after the end of a chunk.
        assert tick <= 5 or target[0] == pytest.approx(now, abs=0.02), now


def test_ensemble_leaves_grippers_to_the_newest_and_waits_for_starts():
    unit = clock(ensemble=0.0)
    unit.offer(ramp(slope=0.0, first=1.0, gripper=0.2), 10.0)
    unit.offer(ramp(slope=0.0, first=2.0, start=10.2, gripper=0.7), 10.0)
    unit.offer(ramp(slope=0.0, first=6.0, start=10.3, gripper=0.9), 10.0)
    np.testing.assert_allclose(unit.target(10.1, HOLD), [1.0, 0.2])
    np.testing.assert_allclose(unit.target(10.2, HOLD), [1.5, 0.7])
    np.testing.assert_allclose(unit.target(10.3, HOLD), [3.0, 0.9])


def test_ensemble_fades_when_a_chunk_comes_and_when_one_ends():
    unit = clock(blend=0.2, ensemble=0.0)
    unit.offer(ramp(slope=0.0, first=1.0), 10.0)
    unit.target(10.0, np.ones(2))
    unit.target(10.5, HOLD)
    unit.offer(ramp(slope=0.0, first=3.0, start=10.6), 10.6)
    values = [unit.target(10.6 + 0.05 * i, HOLD)[0] for i in range(6)]
    np.testing.assert_allclose(values, [1.0, 1.25, 1.5, 1.75, 2.0, 2.0])
    values = [unit.target(11.11 + 0.05 * i, HOLD)[0] for i in range(6)]
    np.testing.assert_allclose(values, [2.0, 2.25, 2.5, 2.75, 3.0, 3.0])


def test_a_flood_of_chunks_is_bounded():
    unit = clock(ensemble=0.0)
    for index in range(1000):
        unit.offer(ramp(slope=0.0, first=float(index), start=10.0 + 1e-4 * index), 10.2)
    assert unit.target(10.2, HOLD)[0] == pytest.approx(np.mean(np.arange(1000)[-64:]))


@pytest.mark.parametrize('ensemble', [-0.1, np.nan, np.inf])
def test_an_ensemble_weight_that_means_nothing_is_refused(ensemble):
    with pytest.raises(HbvlaError, match='ensemble is .*; give a number'):
        clock(ensemble=ensemble)


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
