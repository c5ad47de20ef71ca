# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From chunks to commands: chunk clock and safety stage, one control period each.

Without ROS and without a clock of its own, so that the arm node and the replay of bags turn chunks
into commands by the same lines.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.lookahead import Targets, look_ahead, no_targets
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import Interventions, SafetyStage, SafetyState

Vector = NDArray[np.float64]


class ArmMotion:
    """The motion of one robot's arms.

    Args:
        profile: the robot.
        clock: chunks that may be executed.

    Attributes:
        is_running: whether the last command followed a chunk.
        stage: the limits of the robot.
    """

    def __init__(self, profile: RobotProfile, clock: ChunkClock) -> None:
        """Start without a command.

        Raises:
            HbvlaError: the limits of the profile allow no braking in reasonable time.
        """
        self.stage, self._state = SafetyStage.of(profile), SafetyState()
        self._clock, self._horizon = clock, profile.safety.horizon
        self.is_running = False

    @property
    def command(self) -> Vector | None:
        """The last command (A,), None before the first."""
        return self._state.command

    @property
    def interventions(self) -> Interventions:
        """How often the safety stage had to act."""
        return self._state.interventions

    @property
    def stop(self) -> str:
        """Why the safety stage will not go on, empty while it does."""
        return self._state.stop

    @property
    def at_rest(self) -> bool:
        """Whether the last command did not move from the one before."""
        return self._state.at_rest

    def next_turn(self) -> float:
        """Time in s of the motion, one period after the last command."""
        return self._state.time + self.stage.period

    def forget(self) -> None:
        """Start over from the measured pose, with nothing to execute."""
        self._clock.flush()
        self._state = SafetyState(interventions=self.interventions)

    def hold_here(self, measured: Vector | None) -> None:
        """Start over and hold the measured pose (A,), or as before where it is unknown.

        Arms under way are led there inside the caps, however far their last command is from it: a
        driver must not be told to leap, not even back.
        """
        state = self._state
        self.forget()
        if state.command is not None:
            held = state.held if measured is None else measured
            self._state = replace(state, held=held, target=None, stop='')

    def advance(
        self, now: float, turn: float, measured: Vector | None, may_move: bool
    ) -> Vector | None:
        """One control period.

        Args:
            now: time in s on the chunks' clock.
            turn: time in s of the motion, on a clock that nobody sets.
            measured: pose (A,), None when unknown.
            may_move: whether chunks are executed; otherwise the arms are held.

        Returns:
            The command (A,) to be sent, None where there is none that has not been sent.
        """
        hold = self.stage.hold(self._state, measured)
        target = goal = None
        if may_move and hold is not None:
            target, goal = self._clock.target(now, hold), self._clock.goal(now)
        before = self._state.command
        command, self._state = self.stage.command(self._state, target, measured, turn, goal)
        self.is_running = target is not None
        # A turn too soon after the last gives its command again.
        return None if command is before else command

    def ahead(self, now: float) -> tuple[Vector, int]:
        """The commands that follow the last one, of time ``now`` in s, if no chunk comes."""
        targets = self._targets_from(now) if self.is_running else no_targets
        return look_ahead(self.stage, self._state, targets, self._horizon)

    def _targets_from(self, now: float) -> Targets:
        # A copy: asking a clock for a target moves it on.
        clock = copy.copy(self._clock)
        return lambda ahead, hold: (clock.target(now + ahead, hold), clock.goal(now + ahead))


def implausible(profile: RobotProfile, stage: SafetyStage, measured: Vector) -> str:
    """Which joint cannot be where it is measured (A,), in words; empty if all may be."""
    doubted = np.flatnonzero(stage.doubted(measured))
    if len(doubted) == 0:
        return ''
    name, value = profile.action_names[doubted[0]], measured[doubted[0]]
    return f'{name} is measured at {value:.4g}, too far outside its limits to be true'
