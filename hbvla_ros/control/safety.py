# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The safety stage: the last thing a target passes before it becomes a command.

A pure function on both arms together. Whatever goes in, the command that comes out is finite, and
its velocity, acceleration and jerk, taken from the last commands as differences over the nominal
period, are inside the caps. It is inside the position limits or, for an arm that began outside
them, on its way back and never further out than before. It can always come to rest within the same
limits, and does so in a hold. A target that is not finite in any dimension moves neither arm.
It helps against a policy's mistakes; it is not functional safety.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.braking import Caps
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety_motion import Limits, Motion, Wanted, step
from hbvla_ros.control.safety_state import Interventions, SafetyState
from hbvla_ros.control.safety_watch import Watch
from hbvla_ros.errors import HbvlaError

__all__ = ['Interventions', 'SafetyStage', 'SafetyState']

Vector = NDArray[np.float64]

# A tick sooner than this many periods after the last was due repeats its command, one later than
# the other finds the arms at rest: nobody has sent them on in the meantime.
_SOONEST, _LATEST = 0.5, 5.0
# Ticks are due a period apart. Ones that come too late or too soon shift that by the rest beyond
# these many periods, so that jitter costs no command and no clock makes the arms much faster.
_LATE, _EARLY = 0.25, 0.4
# Time that a late tick counts for in what may last only so long, in periods.
_MAX_PERIODS = 2.0
# Where limits are (nearly) one point, a measurement may still be this far outside, rad or ratio.
_LEAST_BELIEVED = 1.0
# A path to rest of more periods than this is no path for a robot.
_MAX_ROWS = 2000


def _never() -> Vector:
    return np.array(np.inf)


@dataclass(frozen=True)
class SafetyStage:
    """Limits of one robot, applied to every command.

    Attributes:
        lower, upper: position limits (A,) with the margin already inside.
        velocity: largest speed (A,) per second.
        period: nominal time between commands in s.
        lag_bound: (A,) largest distance between last command and measurement while holding.
        acceleration: largest acceleration (A,) in 1/s^2, infinite for grippers.
        jerk: largest jerk (A,) in 1/s^3, infinite for grippers.
        watch: when to go slowly and when to stop.
    """

    lower: Vector
    upper: Vector
    velocity: Vector
    period: float
    lag_bound: Vector
    acceleration: Vector = field(default_factory=_never)
    jerk: Vector = field(default_factory=_never)
    watch: Watch = field(default_factory=Watch)

    @staticmethod
    def of(profile: RobotProfile) -> SafetyStage:
        """The stage of a robot profile; grippers have no margin, they must close fully.

        Raises:
            HbvlaError: the limits of the profile allow no braking in reasonable time.
        """
        safety = profile.safety
        margin = np.where(profile.is_gripper, 0.0, safety.position_margin)
        middle = (profile.lower + profile.upper) / 2
        stage = SafetyStage(
            np.minimum(profile.lower + margin, middle),
            np.maximum(profile.upper - margin, middle),
            profile.velocity,
            1.0 / profile.control_rate,
            np.where(profile.is_gripper, safety.gripper_lag_bound, safety.lag_bound),
            profile.acceleration,
            profile.jerk,
            Watch.of(profile),
        )
        rows = stage.limits.caps.rows
        if rows > _MAX_ROWS:
            raise HbvlaError(
                f'profile {profile.name}: from full speed a joint needs {rows * stage.period:.0f} '
                's to stop; raise acceleration_limits or jerk_limits, or lower velocity_limits'
            )
        return stage

    @cached_property
    def limits(self) -> Limits:
        """The position limits and the caps per period."""
        shape = np.shape(self.lower)
        acceleration = np.broadcast_to(self.acceleration, shape)
        jerk = np.broadcast_to(self.jerk, shape)
        caps = Caps.of(self.velocity, acceleration, jerk, self.period)
        return Limits(self.lower, self.upper, caps)

    def doubted(self, measured: Vector) -> NDArray[np.bool_]:
        """Boolean (A,): which numbers of a measurement cannot be true.

        An arm may stand outside its limits, but not by more than their whole range: that is a
        broken sensor or a wrong unit, and a command that starts there would be as wrong.
        """
        room = np.maximum(self.upper - self.lower, _LEAST_BELIEVED)
        inside = (measured >= self.lower - room) & (measured <= self.upper + room)
        return ~inside  # also what is not a number

    def hold(self, state: SafetyState, measured: Vector | None) -> Vector | None:
        """The pose (A,) to hold: where the arm comes to rest if it follows, else the measured.

        At rest the former is the last command. It is inside the position limits also where
        command and arm are not.

        A pose once chosen is kept until the arm is found elsewhere, so that the way towards it
        does not end half-way, where the arm counts as following again.

        Returns None if there is neither a command nor a measurement to be believed; then nothing
        may be sent, for any number made up here would be a jump.
        """
        chosen = state.rest if state.held is None else state.held
        if chosen is not None:
            chosen = np.clip(chosen, self.lower, self.upper)
        measured = self._believed(measured)
        if measured is None:
            return chosen
        inside = np.clip(measured, self.lower, self.upper)
        if chosen is None or state.command is None:
            return inside
        # Braking, the arm is still behind the pose where it will rest, but near its command.
        away = np.minimum(np.abs(chosen - inside), np.abs(state.command - measured))
        return np.where(away <= self.lag_bound, chosen, inside)

    def command(
        self,
        state: SafetyState,
        target: Vector | None,
        measured: Vector | None,
        now: float,
        goal: Vector | None = None,
    ) -> tuple[Vector | None, SafetyState]:
        """The command (A,) for a target at time ``now`` in s, and the state after it.

        Each command is one period of motion after the one before, however late it comes. One that
        comes sooner than half a period after the last was due, or from a clock that stood or went
        back, repeats it. After a gap of more than five periods the motion begins anew, from rest.

        Args:
            state: what the previous call returned. With a stop in it targets are not followed.
            target: wanted pose (A,), or None to hold.
            measured: measured pose (A,), or None when unknown.
            now: time in s, best of a clock that is never set.
            goal: pose (A,) that targets fade to after a hold, None if they do not fade. Whether a
                start is too far away is judged by it.

        Returns:
            The command and the new state; the command is None as :meth:`hold` explains.
        """
        if state.command is not None and now - state.time > _LATEST * self.period:
            state = replace(state, velocity=None, acceleration=None, path=None, target=None)
        hold = self.hold(state, measured)
        if hold is None:
            return None, state
        if state.command is not None and not now - state.time >= _SOONEST * self.period:
            back = now < state.time - _SOONEST * self.period
            return state.command, replace(state, time=now) if back else state
        measured, watch = self._believed(measured), self.watch
        state, motion, elapsed = self._start(state, measured, now)
        if target is not None and not state.stop:
            state = watch.look_behind(state, measured, elapsed)
            finite = bool(np.isfinite(target).all())
            if finite and not state.stop:
                return self._follow(state, motion, target, goal, measured, elapsed)
            counts = state.interventions.plus(not_finite=not finite)
            state = replace(state, interventions=counts)
            if not state.stop:
                state = watch.look_at_target(state, target, motion.position, elapsed)
        else:
            state = replace(state, lagging=0.0, clamped=0.0)
        free, caps = np.zeros(len(hold), bool), self.limits.caps
        # The pose where the path to rest ends is held by following that path.
        still = Wanted(hold, np.zeros_like(hold), free, caps.velocity, hold == motion.path[-1])
        motion, _ = step(self.limits, motion, still)
        state = replace(state, held=hold, target=None, drift=None, ramping=False)
        return motion.position, self._moved(state, motion)

    def _believed(self, measured: Vector | None) -> Vector | None:
        return None if measured is None or self.doubted(measured).any() else measured

    def _start(
        self, state: SafetyState, measured: Vector | None, now: float
    ) -> tuple[SafetyState, Motion, float]:
        """The motion so far, at rest if there was none, and the time in s that has passed."""
        rows, last, late = self.limits.caps.rows, state.command, now - state.time
        if last is None:
            # Without a command the hold came from the measured pose: the first step starts there.
            assert measured is not None
            state = replace(state, time=now if np.isfinite(now) else state.time)
            return state, Motion.resting(np.array(measured, float), rows), 0.0
        due = state.time + self.period
        soonest, latest = now - _LATE * self.period, now + _EARLY * self.period
        state = replace(state, time=min(max(due, soonest), latest))
        elapsed = min(late, _MAX_PERIODS * self.period)
        if state.velocity is None or state.acceleration is None or state.path is None:
            return state, Motion.resting(last, rows), elapsed
        velocity, change = state.velocity * self.period, state.acceleration * self.period**2
        return state, Motion(last, velocity, change, state.path), elapsed

    def _follow(
        self,
        state: SafetyState,
        motion: Motion,
        target: Vector,
        goal: Vector | None,
        measured: Vector | None,
        elapsed: float,
    ) -> tuple[Vector, SafetyState]:
        """The command towards a finite target."""
        inside, velocity = np.clip(target, self.lower, self.upper), self.limits.caps.velocity
        drift, tracked = self._heading(state, inside)
        aim = inside
        if goal is not None and np.isfinite(goal).all():
            aim = np.clip(goal, self.lower, self.upper)
        begins = state.target is None
        position = measured if begins and measured is not None else motion.position
        ramping = self.watch.ramps(state, aim, position, drift, self.period)
        if ramping:
            velocity = np.minimum(velocity, self.watch.ramp_velocity * self.period)
        free = np.zeros(len(inside), bool)
        motion, changes = step(self.limits, motion, Wanted(inside, drift, tracked, velocity, free))
        counts = state.interventions.plus(
            position=bool((changes.position | (inside != target)).any()),
            velocity=not ramping and bool(changes.velocity.any()),
            acceleration=not ramping and bool(changes.acceleration.any()),
            jerk=not ramping and bool(changes.jerk.any()),
            ramp=ramping,
        )
        state = replace(state, held=None, interventions=counts, target=inside, ramping=ramping)
        state = replace(state, drift=drift / self.period)
        state = self.watch.look_at_target(state, target, motion.position, elapsed)
        return motion.position, self._moved(state, motion)

    def _heading(self, state: SafetyState, target: Vector) -> tuple[Vector, NDArray[np.bool_]]:
        """How far (A,) targets move in a period, and which joints (A,) have followed so far."""
        if state.target is None or state.drift is None:
            return np.zeros_like(target), np.zeros(len(target), bool)
        moved = target - state.target
        # A leap between two chunks says nothing about how the target moves.
        leap = np.abs(moved) > self.limits.caps.velocity
        drift = np.where(leap, state.drift * self.period, moved)
        return drift, np.asarray(state.command == state.target)

    def _moved(self, state: SafetyState, motion: Motion) -> SafetyState:
        """The state with the command that the motion has come to."""
        return replace(
            state,
            command=motion.position,
            velocity=motion.velocity / self.period,
            acceleration=motion.acceleration / self.period**2,
            path=motion.path,
        )
