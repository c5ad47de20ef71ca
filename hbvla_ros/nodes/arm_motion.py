# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From chunks to commands: chunk clock, safety stage, command adapters, one control period each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.lookahead import look_ahead, no_targets
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import Interventions, SafetyStage, SafetyState
from hbvla_ros.nodes.adapters import CommandWriter
from hbvla_ros.nodes.chunk_inbox import ChunkInbox

Vector = NDArray[np.float64]


class ArmMotion:
    """The motion of one robot's arms.

    Args:
        profile: the robot.
        chunks: what may be executed.
        writer: where commands go.

    Attributes:
        is_running: whether the last command followed a chunk.
    """

    def __init__(self, profile: RobotProfile, chunks: ChunkInbox, writer: CommandWriter) -> None:
        """Start without a command.

        Raises:
            HbvlaError: the limits of the profile allow no braking in reasonable time.
        """
        self._stage, self._state = SafetyStage.of(profile), SafetyState()
        self._chunks, self._writer = chunks, writer
        self._horizon = profile.safety.horizon
        self.is_running = False

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
        return self._state.time + self._stage.period

    def forget(self) -> None:
        """Start over from the measured pose, with nothing to execute."""
        self._chunks.begin()
        self._state = SafetyState(interventions=self.interventions)

    def hold_here(self, measured: Vector | None) -> None:
        """Start over from the measured pose (A,); arms under way are led there, not pulled."""
        state = self._state
        self.forget()
        if state.command is None or measured is None:
            return
        if (np.abs(state.command - measured) <= self._stage.lag_bound).all():
            self._state = replace(state, held=measured, target=None, stop='')

    def step(
        self, now: float, turn: float, measured: Vector | None, may_move: bool, is_silent: bool
    ) -> None:
        """One control period.

        Args:
            now: time in s on the chunks' clock, for stamps.
            turn: time in s of the motion, on a clock that nobody sets.
            measured: pose (A,), None when unknown.
            may_move: whether chunks are executed; otherwise the arms are held.
            is_silent: whether to send nothing of it.
        """
        hold = self._stage.hold(self._state, measured)
        target = goal = None
        if may_move and hold is not None:
            target, goal = self._chunks.clock.target(now, hold), self._chunks.clock.goal(now)
        before = self._state.command
        command, self._state = self._stage.command(self._state, target, measured, turn, goal)
        self.is_running = target is not None
        # A tick too soon after the last gives its command again: that has been sent.
        if command is not None and command is not before and not is_silent:
            self._writer.send(command, now, not self.is_running, lambda: self._ahead(now))

    def _ahead(self, now: float) -> tuple[Vector, int]:
        """The commands that follow the present one, if no message comes."""
        targets = self._chunks.targets_from(now) if self.is_running else no_targets
        return look_ahead(self._stage, self._state, targets, self._horizon)
