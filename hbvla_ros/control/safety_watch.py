# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What limits do not catch: arms that do not follow, far starts, targets clamped all the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety_state import SafetyState

Vector = NDArray[np.float64]

# A target that is changed by less than this, in rad, is not clamped; one this near is reached.
# The margin of the position limits comes to it: within, a target is sound, only not followed.
_SLACK = 0.01


def _never() -> Vector:
    return np.array(np.inf)


@dataclass(frozen=True)
class Watch:
    """When to go slowly and when to stop; by default never.

    The thresholds are infinite for grippers: they may be closed on an object, and their targets
    overrun the ends of their travel as a matter of course.

    Attributes:
        lag_stop: (A,) a joint farther than this from its command while targets are followed ...
        lag_time: ... for so long in s: stop.
        start_mismatch: (A,) a start farther than this from the measured pose is a slow one.
        ramp_velocity: its speed (A,) in 1/s.
        slack: (A,) a target changed by no more than this is not clamped.
        clamp_stop: targets clamped for so long in s without interruption: stop.
        names: of the numbers of a pose, for reasons; empty goes by their index.
    """

    lag_stop: Vector = field(default_factory=_never)
    lag_time: float = np.inf
    start_mismatch: Vector = field(default_factory=_never)
    ramp_velocity: Vector = field(default_factory=_never)
    slack: Vector = field(default_factory=_never)
    clamp_stop: float = np.inf
    names: tuple[str, ...] = ()

    @staticmethod
    def of(profile: RobotProfile) -> Watch:
        """The bounds of a robot profile."""
        safety, grippers = profile.safety, profile.is_gripper

        def joints(value: float) -> Vector:
            return np.where(grippers, np.inf, value)

        return Watch(
            joints(safety.lag_stop),
            safety.lag_time,
            joints(safety.start_mismatch),
            np.full(len(grippers), safety.ramp_velocity),
            joints(safety.position_margin + _SLACK),
            safety.clamp_stop,
            profile.action_names,
        )

    def look_behind(
        self, state: SafetyState, measured: Vector | None, elapsed: float
    ) -> SafetyState:
        """The state with a stop if a joint has not followed its commands for too long.

        Args:
            state: with the last command.
            measured: pose (A,), or None where it is unknown; then nothing can be said.
            elapsed: time in s since the last look.
        """
        if state.command is None or measured is None:
            return replace(state, lagging=0.0)
        distance = np.abs(state.command - measured)
        behind = distance > self.lag_stop
        if not behind.any():
            return replace(state, lagging=0.0)
        lagging, stop = state.lagging + elapsed, ''
        if lagging >= self.lag_time:
            worst = int(np.argmax(np.where(behind, distance, 0.0)))
            stop = f'{self._name(worst)} does not follow: {distance[worst]:.2f} from its command'
        counts = state.interventions.plus(lag=True)
        return replace(state, lagging=lagging, interventions=counts, stop=stop)

    def look_at_target(
        self, state: SafetyState, target: Vector, command: Vector, elapsed: float
    ) -> SafetyState:
        """The state with a stop if targets were clamped for too long.

        Args:
            state: the slow ramp at a start is no clamping.
            target: as it came (A,); one that is not finite is clamped.
            command: what became of it (A,).
            elapsed: time in s since the last look.
        """
        distance = np.abs(target - command)
        if state.ramping or (distance <= self.slack).all():
            return replace(state, clamped=0.0)
        clamped, stop = state.clamped + elapsed, ''
        if clamped >= self.clamp_stop:
            worst = int(np.argmax(np.where(distance <= self.slack, 0.0, distance)))
            stop = (
                f'targets were clamped for {clamped:.1f} s, now {self._name(worst)} from '
                f'{target[worst]:.4g} to {command[worst]:.4g}'
            )
        return replace(state, clamped=clamped, stop=stop)

    def ramps(
        self, state: SafetyState, goal: Vector, position: Vector, drift: Vector, period: float
    ) -> bool:
        """Whether to approach a goal (A,) slowly: from a start far away until it is reached.

        A goal that runs ahead faster than the ramp would never be reached: there it is enough to be
        half as far away as a start may be.

        Args:
            state: before this command.
            goal: where targets lead.
            position: at a start the measured pose (A,), later the last command.
            drift: how far (A,) targets moved in the last period.
            period: time between commands in s.
        """
        distance = np.abs(goal - position)
        if state.target is None:
            return bool((distance > self.start_mismatch).any())
        way = self.ramp_velocity * period
        if not state.ramping or (distance <= np.maximum(way, _SLACK)).all():
            return False
        runs = bool((np.abs(drift) > way).any())
        return not (runs and bool((distance <= self.start_mismatch / 2.0).all()))

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else f'joint {index}'
