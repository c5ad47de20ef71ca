# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The arms' side of a replay: chunks through the chunk clock and the safety stage, tick by tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import Interventions, SafetyStage, SafetyState
from hbvla_ros.data import ActionChunk
from hbvla_ros.evaluation.replay_policy import Instant
from hbvla_ros.recordings.bag_ingest import Ingest

Vector = NDArray[np.float64]

# Whose pose the safety stage is told: that of arms which follow every command, or the bag's.
FOLLOWING, RECORDED = 'follow', 'recorded'


@dataclass(frozen=True)
class Tick:
    """One turn of the control loop.

    Attributes:
        instant: when.
        command: (A,) what was sent, None for nothing.
        measured: (A,) the bag's newest pose, None before the first.
        holding: why no target was followed, empty while one was.
        interventions: kinds of change that the safety stage made in this turn.
    """

    instant: Instant
    command: Vector | None
    measured: Vector | None
    holding: str
    interventions: tuple[str, ...]


class ArmSide:
    """Does in each turn what ``arm_node`` does.

    Args:
        profile: the robot.
        ingest: what was heard of the joints.
        simulated: whether time is ``/clock``.
        arms: :data:`FOLLOWING` or :data:`RECORDED`.
        waiting: why there is nothing to execute, where the arms themselves are well.
    """

    def __init__(
        self,
        profile: RobotProfile,
        ingest: Ingest,
        arms: str,
        waiting: Callable[[], str],
    ) -> None:
        """Start active, holding, before the first joint state."""
        safety = profile.safety
        self._profile, self._ingest, self._waiting = profile, ingest, waiting
        self._follows = arms == FOLLOWING
        self._clock = ChunkClock(profile.is_gripper, safety.blend, safety.max_future)
        self._stage, self._state = SafetyStage.of(profile), SafetyState()
        self._fault = ''
        self.ticks: list[Tick] = []

    @property
    def clock_jumps(self) -> int:
        """How often the time of the commands went back."""
        return self._clock.clock_jumps

    @property
    def stop(self) -> str:
        """Why the arms were stopped for good, empty if they were not."""
        return self._state.stop

    @property
    def stage(self) -> SafetyStage:
        """The limits that the commands were kept to."""
        return self._stage

    def flush(self) -> None:
        """Forget every chunk and hold."""
        self._clock.flush()

    def offer(self, chunk: ActionChunk, instant: Instant) -> str:
        """A chunk of poses arrives; why it is refused, empty if it is not."""
        if self._state.stop:
            return f'while stopped: {self._state.stop}'
        if self._fault:
            return f'while holding: {self._fault}'
        return self._clock.offer(chunk, instant.now).reason

    def tick(self, instant: Instant) -> None:
        """One turn."""
        fault = self._joint_fault(instant)
        if fault and not self._fault:
            self._clock.flush()
        self._fault = fault
        newest = self._ingest.newest()
        measured = None if fault else self._pose(newest)
        before = self._state.interventions
        hold = self._stage.hold(self._state, measured)
        target = goal = None
        if hold is not None and not fault and not self._state.stop:
            target = self._clock.target(instant.now, hold)
            goal = None if target is None else self._clock.goal(instant.now)
        command, self._state = self._stage.command(self._state, target, measured, instant.now, goal)
        holding = (fault or self._waiting()) if target is None else ''
        if self._state.stop:
            # Until a reset, which nobody gives here.
            self._clock.flush()
            holding = f'stopped: {self._state.stop}'
        changed = _changed(before, self._state.interventions)
        self.ticks.append(Tick(instant, command, newest, holding, changed))

    def _pose(self, newest: Vector | None) -> Vector | None:
        """Where the arms are taken to be.

        In a replay they cannot follow this policy: the bag shows what another one made them do.
        """
        if self._follows and self._state.command is not None:
            return self._state.command
        return newest

    def _joint_fault(self, instant: Instant) -> str:
        newest = self._ingest.newest()
        if newest is None:
            return 'no joint states yet'
        age = self._ingest.joint_age(instant.received, instant.clock)
        if age > self._profile.safety.joint_state_timeout:
            return f'no joint states for {age:.2f} s'
        doubted = np.flatnonzero(self._stage.doubted(newest))
        if len(doubted) == 0:
            return ''
        name, value = self._profile.action_names[doubted[0]], newest[doubted[0]]
        return f'{name} is measured at {value:.4g}, too far outside its limits to be true'


def _changed(before: Interventions, after: Interventions) -> tuple[str, ...]:
    """Kinds that were counted in between."""
    return tuple(
        field.name.replace('_', ' ')
        for field in fields(Interventions)
        if getattr(after, field.name) != getattr(before, field.name)
    )
