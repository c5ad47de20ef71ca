# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What is judged on the wire: a late hold is late, and no standstill is taken on trust."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.starvation import Starvation, run_delay
from hbvla_ros.evaluation.wire import (
    CANARY_PERIOD,
    Beat,
    Command,
    WireCheck,
    hold_after,
    is_moving,
    last_motion,
    stood_still,
)

PROFILE = RobotProfile.load('aloha_sim')
START = PROFILE.split(PROFILE.start_pose)[0]
PERIOD = 1.0 / PROFILE.control_rate
# Speed limit of a joint in one control period, rad.
STEP = PROFILE.velocity[0] * PERIOD


def commands(moves_until, end=3.0, shift=0.0):
    """An arm that moves, then holds; one command a period."""
    made = []
    for number in range(round(end / PERIOD)):
        at = number * PERIOD + shift
        pose = START.copy()
        pose[0] += 0.02 * min(number, round(moves_until / PERIOD))
        made.append(Command(at, at - 0.001, number, pose))
    return made


def beats(end=3.0, still=(), late=()):
    """The canary of a machine that stood still in some spans, or read it late."""
    made, at = [], 0.0
    while at < end:
        received = next((last for first, last in late if first <= at < last), at + 0.001)
        made.append(Beat(len(made), at, received))
        at += CANARY_PERIOD
        at = next((last for first, last in still if first <= at < last), at)
    return made


def measure(moves_until, valid=1.0, bound=0.25, waits=(), canary=None, **options):
    arms = [commands(moves_until), commands(moves_until)]
    seen = beats() if canary is None else canary
    return hold_after(arms, seen, valid, bound, 2.5, lambda *_: list(waits), **options)


def check(*values, numbers=None, times=None):
    """Violations of commands of the left arm's waist."""
    numbers = range(len(values)) if numbers is None else numbers
    times = [PERIOD * n for n in range(len(values))] if times is None else times
    looked, found = WireCheck(PROFILE, 0), []
    for value, number, at in zip(values, numbers, times, strict=True):
        pose = START.copy()
        pose[0] = value
        found += looked.add(Command(at, at, number, pose))
    return found


def test_a_hold_in_time_is_in_time_and_a_late_one_is_not():
    assert measure(1.2).in_time and measure(1.2).tells
    late = measure(1.4)
    assert not late.in_time and late.tells
    assert late.seconds == pytest.approx(0.4, abs=PERIOD)


def test_arms_that_never_hold_are_late():
    assert not measure(9.0).in_time


def test_one_arm_that_goes_on_is_enough():
    arms = [commands(1.1), commands(1.5)]
    assert not hold_after(arms, beats(), 1.0, 0.25, 2.5, lambda *_: []).in_time


def test_a_standstill_is_discounted_but_no_more_than_was_seen():
    still = beats(still=[(1.1, 1.2)])
    assert measure(1.3, canary=still).in_time
    assert not measure(1.5, canary=still).in_time
    # One before or after the hold explains nothing.
    for span in [(0.5, 0.6), (1.9, 2.0)]:
        assert not measure(1.36, canary=beats(still=[span])).in_time


def test_a_recorder_that_was_late_to_read_is_discounted():
    assert stood_still(beats(late=[(1.1, 1.2)]), 1.0, 2.0) == pytest.approx(0.1, abs=0.03)


def test_waiting_for_a_processor_is_discounted_for_the_one_that_waited_longest():
    assert measure(1.33, waits=[0.08, 0.03]).in_time
    assert not measure(1.33, waits=[0.03, 0.03]).in_time
    # Where the nodes waited for long, neither a hold in time nor a late one shows anything...
    doubtful = measure(1.5, waits=[0.4])
    assert doubtful.in_time and not doubtful.tells
    # ... but what was kept without any allowance was kept.
    assert measure(1.2, waits=[0.4]).tells


def test_without_the_canary_nothing_is_measured():
    for silent in ([], beats(end=1.1), beats()[60:]):
        with pytest.raises(HbvlaError, match='canary was not heard'):
            measure(1.2, canary=silent)
    gap = beats()
    del gap[55]
    with pytest.raises(HbvlaError, match='canary were lost'):
        measure(1.2, canary=gap)
    # Before and after it may be.
    elsewhere = beats()
    del elsewhere[10], elsewhere[100]
    assert measure(1.2, canary=elsewhere).in_time


def test_silence_is_no_hold():
    quiet = commands(1.1, end=1.2)
    with pytest.raises(HbvlaError, match='no longer commanded'):
        hold_after([quiet, quiet], beats(), 1.0, 0.25, 2.5, lambda *_: [])
    assert hold_after([quiet, quiet], beats(), 1.0, 0.25, 2.5, lambda *_: [], True).in_time
    with pytest.raises(HbvlaError, match='no commands before'):
        measure(1.2, valid=-1.0)


def test_motion_is_told_from_a_hold():
    assert is_moving(commands(1.0), 0.5, 0.9) and not is_moving(commands(1.0), 1.2, 1.9)
    assert not is_moving([], 0.0, 1.0)
    assert last_motion(commands(1.0), 1.2, 2.0) is None


def test_limits_are_judged_with_their_joint():
    [violation] = check(0.0, 0.1, 3.2, numbers=[0, 1, 40])
    assert violation.kind == 'position limit' and 'left_waist is sent to 3.2' in violation.text
    [violation] = check(0.0, np.nan, 0.1)
    assert violation.kind == 'not finite'
    assert check(0.0, 0.9 * STEP, 0.0) == []


def test_a_step_may_be_one_period_of_motion():
    assert check(0.0, STEP) == []
    [violation] = check(0.0, 1.1 * STEP)
    assert violation.kind == 'velocity limit'


def test_messages_that_were_lost_count_by_the_publishers_number():
    assert check(0.0, 2.9 * STEP, numbers=[7, 10]) == []
    assert check(0.0, 3.1 * STEP, numbers=[7, 10])[0].kind == 'velocity limit'
    # However long it took, one message is one period of motion.
    assert check(0.0, 2.0 * STEP, numbers=[7, 8], times=[0.0, 3 * PERIOD])


def test_another_publisher_counts_by_the_clock():
    assert check(0.0, 2.9 * STEP, numbers=[700, 3], times=[0.0, 3 * PERIOD]) == []
    assert check(0.0, 2.0 * STEP, numbers=[700, 3], times=[0.0, PERIOD])


def test_after_somebody_else_the_next_step_begins_there():
    looked, step = WireCheck(PROFILE, 0), np.array([STEP] * 2 + [0.0] * 5)
    far = START + 5 * step
    looked.add(Command(0.0, 0.0, 0, START))
    looked.somebody_else(far)
    assert looked.add(Command(0.1, 0.1, 1, START)) == []
    looked.somebody_else(far)
    assert looked.add(Command(0.2, 0.2, 2, far)) == []
    assert looked.add(Command(0.3, 0.3, 3, START))[0].kind == 'velocity limit'
    looked.somebody_else(far)
    assert looked.add(Command(0.4, 0.4, 4, far - 2 * step)) != []


def test_a_process_that_waits_for_a_processor_is_seen():
    assert run_delay(2**22 + 1) == 0.0
    cores = sorted(os.sched_getaffinity(0))[:1]
    busy = 'import os; os.sched_setaffinity(0, {cores}); exec("while True: pass")'
    rivals = [
        subprocess.Popen([sys.executable, '-c', busy.replace('{cores}', str(set(cores)))])
        for _ in range(2)
    ]
    starvation = Starvation(lambda: {str(one.pid): one.pid for one in rivals})
    try:
        time.sleep(0.5)
        begin = time.monotonic()
        time.sleep(1.0)
        waits = starvation.waited(begin, begin + 1.0)
        # Two that want one processor: each waits about half of the time.
        assert len(waits) == 2 and 0.5 < sum(waits) < 3.0
    finally:
        starvation.close()
        for one in rivals:
            one.kill()
            one.wait()
