# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The safety stage: the last thing a target passes before it becomes a command.

A pure function on both arms together. Whatever goes in, the command that comes out is finite and
no further from the last command (the first: from the measured pose) than the velocity limits
allow. It is inside the position limits, or, for an arm that began outside them, on its way back
and never further out than before; a target that is not finite in any dimension moves neither arm.
It helps against a policy's mistakes; it is not functional safety.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import RobotProfile

Vector = NDArray[np.float64]

# A tick that comes late may catch up for at most this many periods of motion.
_MAX_PERIODS = 2.0
# Where limits are (nearly) one point, a measurement may still be this far outside, rad or ratio.
_LEAST_BELIEVED = 1.0


@dataclass(frozen=True)
class Interventions:
    """How often the stage changed a target, by kind, since the state was made."""

    not_finite: int = 0
    position: int = 0
    velocity: int = 0

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.not_finite + self.position + self.velocity


@dataclass(frozen=True)
class SafetyState:
    """What the stage remembers from one command to the next.

    Attributes:
        command: the last command (A,), None before the first.
        time: its time in s.
        held: the pose (A,) that is being held, None while a target is followed.
        interventions: counters.
    """

    command: Vector | None = None
    time: float = 0.0
    held: Vector | None = None
    interventions: Interventions = field(default_factory=Interventions)


@dataclass(frozen=True)
class SafetyStage:
    """Limits of one robot, applied to every command.

    Attributes:
        lower, upper: position limits (A,) with the margin already inside.
        velocity: largest speed (A,) per second.
        period: nominal time between commands in s.
        lag_bound: (A,) largest distance between last command and measurement while holding.
    """

    lower: Vector
    upper: Vector
    velocity: Vector
    period: float
    lag_bound: Vector

    @staticmethod
    def of(profile: RobotProfile) -> SafetyStage:
        """The stage of a robot profile; grippers have no margin, they must close fully."""
        safety = profile.safety
        margin = np.where(profile.is_gripper, 0.0, safety.position_margin)
        middle = (profile.lower + profile.upper) / 2
        return SafetyStage(
            np.minimum(profile.lower + margin, middle),
            np.maximum(profile.upper - margin, middle),
            profile.velocity,
            1.0 / profile.control_rate,
            np.where(profile.is_gripper, safety.gripper_lag_bound, safety.lag_bound),
        )

    def doubted(self, measured: Vector) -> NDArray[np.bool_]:
        """Boolean (A,): which numbers of a measurement cannot be true.

        An arm may stand outside its limits, but not by more than their whole range: that is a
        broken sensor or a wrong unit, and a command that starts there would be as wrong.
        """
        room = np.maximum(self.upper - self.lower, _LEAST_BELIEVED)
        inside = (measured >= self.lower - room) & (measured <= self.upper + room)
        return ~inside  # also what is not a number

    def hold(self, state: SafetyState, measured: Vector | None) -> Vector | None:
        """The pose (A,) to hold: the last command where the arm follows it, else the measured.

        It is inside the position limits also where command and arm are not.

        A pose once chosen is kept until the arm is found elsewhere, so that the way towards it
        does not end half-way, where the arm counts as following again.

        Returns None if there is neither a command nor a measurement to be believed; then nothing
        may be sent, for any number made up here would be a jump.
        """
        chosen = state.command if state.held is None else state.held
        if chosen is not None:
            chosen = np.clip(chosen, self.lower, self.upper)
        if measured is None or self.doubted(measured).any():
            return chosen
        measured = np.clip(measured, self.lower, self.upper)
        if chosen is None:
            return measured
        follows = np.abs(chosen - measured) <= self.lag_bound
        return np.where(follows, chosen, measured)

    def command(
        self,
        state: SafetyState,
        target: Vector | None,
        measured: Vector | None,
        now: float,
    ) -> tuple[Vector | None, SafetyState]:
        """The command (A,) for a target at time ``now`` in s, and the state after it.

        Args:
            state: what the previous call returned.
            target: wanted pose (A,), or None to hold.
            measured: measured pose (A,), or None when unknown.
            now: time in s; a clock that stood or went back allows no motion.

        Returns:
            The command and the new state; the command is None as :meth:`hold` explains.
        """
        hold = self.hold(state, measured)
        if hold is None:
            return None, state
        counts = state.interventions
        steered = target is not None and bool(np.isfinite(target).all())
        wanted = target if target is not None and steered else hold
        inside = np.clip(wanted, self.lower, self.upper)
        # Without a command the hold came from the measured pose: the first step starts there.
        last = measured if state.command is None else state.command
        assert last is not None
        stepped = self._limit_step(inside, last, self._elapsed(state, now))
        counts = Interventions(
            counts.not_finite + (target is not None and not steered),
            counts.position + (steered and not np.array_equal(inside, wanted)),
            counts.velocity + (steered and not np.array_equal(stepped, inside)),
        )
        time = now if np.isfinite(now) else state.time
        return stepped, SafetyState(stepped, time, None if steered else hold, counts)

    def _elapsed(self, state: SafetyState, now: float) -> float:
        """Time of motion to allow: none for a clock that went back, little for one that leapt."""
        if state.command is None:
            return self.period
        elapsed = now - state.time if np.isfinite(now) else 0.0
        return float(np.clip(elapsed, 0.0, _MAX_PERIODS * self.period))

    def _limit_step(self, target: Vector, last: Vector, elapsed: float) -> Vector:
        cap = self.velocity * elapsed
        # A target within reach is taken as it is: adding its step would change the last bits.
        within = np.abs(target - last) <= cap
        stepped = np.where(within, target, last + np.clip(target - last, -cap, cap))
        # The limits, widened to the last command where that is outside them: never further out.
        return np.clip(stepped, np.minimum(self.lower, last), np.maximum(self.upper, last))
