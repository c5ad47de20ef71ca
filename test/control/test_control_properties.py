# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whatever arrives, whenever it arrives: commands are finite, steps capped, never further out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState
from hbvla_ros.control.safety_watch import Watch
from hbvla_ros.data import ActionChunk

PROFILE = RobotProfile.load('aloha_sim')
STAGE = SafetyStage.of(PROFILE)
ACTIONS = len(PROFILE.action_names)

# Mostly ordinary numbers, now and then what a broken network or driver sends.
values = st.one_of(
    st.floats(-4.0, 4.0), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-320])
)


@st.composite
def rows(draw):
    """Chunks of one random pose per row, with a few single numbers replaced by odd ones."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 12))
    width = draw(st.sampled_from([ACTIONS] * 9 + [7]))
    actions = generator.uniform(-4.0, 4.0, (count, width))
    if count and draw(st.booleans()):
        actions[draw(st.integers(0, count - 1)), draw(st.integers(0, width - 1))] = draw(values)
    return actions


offers = st.tuples(
    rows(),
    st.floats(-1.0, 1.5),
    st.sampled_from([0.04, 0.02, 0.2, 0.0, -0.04]),
    st.sampled_from(['a', 'b']),
)
# Time of the next tick after this one: mostly a period, sometimes late, frozen, back or far ahead.
time_steps = st.one_of(
    st.just(0.04), st.floats(0.0, 0.2), st.sampled_from([0.0, -0.5, -100.0, 50.0])
)
measurements = st.one_of(
    st.none(), st.lists(values, min_size=ACTIONS, max_size=ACTIONS), st.just('follow')
)
events = st.lists(
    st.tuples(
        time_steps,
        st.one_of(st.none(), offers),
        measurements,
        st.sampled_from([None] * 8 + ['a', 'b']),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events)
@pytest.mark.filterwarnings('ignore:.*encountered in.*:RuntimeWarning')
def test_every_command_is_finite_in_limits_and_capped(sequence):
    clock, state, now = ChunkClock(PROFILE.is_gripper, 0.1, 0.5), SafetyState(), 1000.0
    for step, offer, measurement, instruction in sequence:
        previous, now_before = state.command, now
        now += step
        if instruction is not None:
            clock.set_instruction(instruction)
        if offer is not None:
            actions, delay, row_step, text = offer
            clock.offer(ActionChunk(actions, now - delay, row_step, now - delay, text, 'x'), now)
        measured = state.command if measurement == 'follow' else measurement
        measured = None if measured is None else np.asarray(measured, dtype=float)
        hold = STAGE.hold(state, measured)
        target = None if hold is None else clock.target(now, hold)
        command, state = STAGE.command(state, target, measured, now)
        if command is None:
            assert previous is None
            continue
        assert np.isfinite(command).all()
        if previous is None:
            before, allowed = measured, STAGE.period
        else:
            before, allowed = previous, STAGE.period if now > now_before else 0.0
        # Inside the limits, or where it began outside them, not further out than before.
        assert (outside(command) <= outside(before)).all()
        assert (np.abs(command - before) <= STAGE.velocity * (allowed + 1e-9) + 1e-9).all()


def outside(pose):
    """How far each number is outside the limits, 0 inside."""
    return np.maximum(np.maximum(STAGE.lower - pose, pose - STAGE.upper), 0.0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-9.0, 9.0), min_size=ACTIONS, max_size=ACTIONS),
    st.lists(st.floats(-9.0, 9.0), min_size=ACTIONS, max_size=ACTIONS) | st.none(),
    st.booleans(),
)
def test_any_measured_start_is_left_in_capped_steps_into_the_limits(start, target, follows):
    """The arm is where it was commanded to be, or it does not move at all."""
    room = 0.999 * (STAGE.upper - STAGE.lower)  # further out a measurement is not believed
    measured = np.clip(start, STAGE.lower - room, STAGE.upper + room)
    target = None if target is None else np.array(target)
    stage = replace(STAGE, watch=Watch())  # without the slow ramp
    before, state, cap = measured, SafetyState(), stage.velocity * stage.period
    ticks = int(np.ceil((STAGE.upper - STAGE.lower) / cap).max()) + 4
    for tick in range(ticks):
        arm = before if follows else measured
        command, state = stage.command(state, target, arm, tick * STAGE.period)
        assert (np.abs(command - before) <= cap + 1e-9).all()
        # At full speed, but for the last steps.
        assert (outside(command) <= np.maximum(outside(before) - cap / 4, 0.0)).all()
        before = command
    assert (outside(before) == 0.0).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 0.08), st.floats(0.0, 0.3), st.booleans()),
        min_size=5,
        max_size=60,
    )
)
def test_a_policy_that_agrees_with_itself_is_followed_exactly(ticks):
    """Late, lost and overlapping chunks of one smooth motion give that motion, without jumps."""

    def pose(time):
        wave = 0.5 * np.sin(0.7 * time + np.arange(ACTIONS))
        return np.where(PROFILE.is_gripper, 0.5, wave)

    clock, now, step = ChunkClock(PROFILE.is_gripper, 0.1, 0.5), 100.0, 0.02
    end, held = -np.inf, now
    for elapsed, latency, lost in ticks:
        now += elapsed
        if not lost:
            stamp = now - latency
            chunk = np.stack([pose(stamp + i * step) for i in range(40)])
            if clock.offer(ActionChunk(chunk, stamp, step, stamp, 'a', 'x'), now).accepted:
                end = stamp + 39 * step
        target = clock.target(now, pose(now))
        assert (target is not None) == (now <= end + step)
        if now > end:
            held = now
            continue
        # While fading out of a hold it lags by at most what the motion covers in one fade.
        settled = now > held + 1.0
        np.testing.assert_allclose(target, pose(now), atol=5e-4 if settled else 0.04)
