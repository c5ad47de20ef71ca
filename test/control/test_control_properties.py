# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whatever arrives, whenever it arrives: commands are finite, capped, and never further out."""

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
# A robot without caps that matter, one with tight ones, and that one without slow starts and stops.
TIGHT = SafetyStage.of(RobotProfile.load('agilex_piper_dual'))
STAGES = [STAGE, TIGHT, replace(TIGHT, watch=Watch())]

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
    st.sampled_from(['x'] * 5 + ['y']),
)
# Periods to the next tick, on a clock that is never set: mostly one.
intervals = st.one_of(st.just(1.0), st.floats(0.6, 1.4), st.sampled_from([0.0, 0.1, 3.0, 70.0]))
# What somebody sets the other clock by in that time, in s, and one that is no time at all.
settings_of_clock = st.sampled_from([0.0] * 8 + [-0.01, 0.3, -0.5, -100.0, 50.0, np.nan])
measurements = st.one_of(
    st.none(), st.lists(values, min_size=ACTIONS, max_size=ACTIONS), st.just('follow')
)
events = st.lists(
    st.tuples(
        intervals,
        settings_of_clock,
        st.one_of(st.none(), offers),
        measurements,
        st.sampled_from([None] * 8 + ['a', 'b', 'flush']),
    ),
    min_size=1,
    max_size=40,
)


class Recorder:
    """Takes down commands as a controller sees them and checks each against those before."""

    def __init__(self, stage):
        self.stage, self.command = stage, None
        self.state = SafetyState()

    def tick(self, target, measured, now, goal=None):
        """One tick; a command that the stage was not yet due to give must be the last again."""
        stage, before = self.stage, self.state
        command, self.state = stage.command(before, target, measured, now, goal)
        if command is None:
            assert self.command is None
            return
        assert np.isfinite(command).all()
        if self.command is None:
            self.command, self.velocity = measured, np.zeros(ACTIONS)
            self.acceleration = np.zeros(ACTIONS)
        elif now - before.time < stage.period / 2:
            assert np.array_equal(command, self.command)
            return
        elif now - before.time > 5 * stage.period:
            self.velocity = self.acceleration = np.zeros(ACTIONS)
        # Inside the limits, or where it began outside them, not further out than before.
        assert (outside(command, stage) <= outside(self.command, stage)).all()
        velocity = (command - self.command) / stage.period
        acceleration = (velocity - self.velocity) / stage.period
        jerk = (acceleration - self.acceleration) / stage.period
        for value, cap in (
            (velocity, stage.velocity),
            (acceleration, stage.acceleration),
            (jerk, stage.jerk),
        ):
            assert (np.abs(value) <= cap * (1 + 1e-6) + 1e-6).all()
        self.command, self.velocity, self.acceleration = command, velocity, acceleration

    def comes_to_rest(self):
        """Without targets arms that follow stand still after the time that the limits need."""
        for _ in range(self.stage.limits.caps.rows):
            self.tick(None, self.command, self.state.time + self.stage.period)
        return self.state.at_rest


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events, st.sampled_from(STAGES), st.sampled_from([None, None, 0.0, 0.1]))
@pytest.mark.filterwarnings('ignore:.*encountered in.*:RuntimeWarning')
def test_every_command_is_finite_in_limits_and_capped(sequence, stage, ensemble):
    """Whatever chunks, losses, latencies, flushes, measurements and clocks there are."""
    clock, recorder = ChunkClock(PROFILE.is_gripper, 0.1, 0.5, ensemble), Recorder(stage)
    wall, steady = 1000.0, 50.0
    for interval, setting, offer, measurement, instruction in sequence:
        steady += interval * stage.period
        now = wall + setting
        wall += interval * stage.period + (setting if np.isfinite(setting) else 0.0)
        if instruction == 'flush':
            clock.flush()
        elif instruction is not None:
            clock.set_instruction(instruction)
        if offer is not None:
            actions, delay, row_step, text, checkpoint = offer
            start = wall - delay
            clock.offer(ActionChunk(actions, start, row_step, start, text, checkpoint), now)
        measured = recorder.command if measurement == 'follow' else measurement
        measured = None if measured is None else np.asarray(measured, dtype=float)
        hold = stage.hold(recorder.state, measured)
        target = None if hold is None else clock.target(now, hold)
        recorder.tick(target, measured, steady, clock.goal(now))
    if recorder.command is not None:
        held = recorder.state.held
        assert recorder.comes_to_rest() or held is not None  # that may be far away


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(STAGES),
    st.floats(0.0, 0.6),
    st.floats(0.0, 0.3),
    st.sampled_from([None, 0.05]),
)
def test_a_policy_under_way_is_capped_and_its_loss_comes_to_rest(
    seed, stage, latency, lost, ensemble
):
    """Seconds of overlapping chunks that disagree, some late, some lost, and ticks that jitter."""
    generator = np.random.default_rng(seed)
    clock, recorder = ChunkClock(PROFILE.is_gripper, 0.1, 0.5, ensemble), Recorder(stage)
    start = generator.uniform(stage.lower, stage.upper)
    frequency, scale = generator.uniform(0.1, 6.0, (2, ACTIONS))
    now = 100.0
    for tick in range(80):
        now += stage.period * generator.uniform(0.8, 1.2)
        if tick % 8 == 0 and generator.uniform() > lost:
            stamp = now - latency
            times = stamp + 0.04 * np.arange(25)[:, None]
            wave = start + 0.3 * scale * np.sin(frequency * times)
            wave += generator.normal(0.0, 0.02, wave.shape)
            clock.offer(ActionChunk(wave, stamp, 0.04, stamp, '', 'x'), now)
        measured = start if recorder.command is None else recorder.command
        measured = measured + generator.normal(0.0, 1e-3, ACTIONS)
        hold = stage.hold(recorder.state, measured)
        recorder.tick(clock.target(now, hold), measured, now, clock.goal(now))
    assert recorder.comes_to_rest()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 0.3, -3.0, 1e9, -1e9, np.nan]), st.floats(-4.0, 4.0)),
        max_size=40,
    )
)
def test_a_clock_that_is_set_at_will_makes_no_command_faster(sequence):
    """A stage that is given such a clock repeats or goes on by one period, never by more."""
    state, now = SafetyState(), 1000.0
    command = before = np.clip(np.zeros(ACTIONS), TIGHT.lower, TIGHT.upper)
    for interval, number in sequence:
        at = now + interval * TIGHT.period
        now = at if np.isfinite(at) else now
        command, state = TIGHT.command(state, np.full(ACTIONS, number), before, at)
        assert (outside(command, TIGHT) == 0.0).all()
        assert (np.abs(command - before) <= TIGHT.velocity * TIGHT.period * (1 + 1e-9)).all()
        before = command


def outside(pose, stage=STAGE):
    """How far each number is outside the limits, 0 inside."""
    return np.maximum(np.maximum(stage.lower - pose, pose - stage.upper), 0.0)


@settings(max_examples=50, deadline=None)
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
