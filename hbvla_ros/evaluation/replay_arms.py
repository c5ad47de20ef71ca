# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The arms' side of a replay: chunks through the chunk clock and the safety stage, tick by tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.arm_motion import ArmMotion, implausible
from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import Interventions
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
        ensemble: weight of the average over overlapping chunks, None for the newest alone.
    """

    def __init__(
        self,
        profile: RobotProfile,
        ingest: Ingest,
        simulated: bool,
        arms: str,
        waiting: Callable[[], str],
        ensemble: float | None = None,
    ) -> None:
        """Start active, holding, before the first joint state."""
        safety = profile.safety
        self._profile, self._ingest, self._waiting = profile, ingest, waiting
        self._simulated, self._follows = simulated, arms == FOLLOWING
        self._clock = ChunkClock(profile.is_gripper, safety.blend, safety.max_future, ensemble)
        self._motion = ArmMotion(profile, self._clock)
        self._problem = ''
        self.ticks: list[Tick] = []

    @property
    def clock_jumps(self) -> int:
        """How often the time of the commands went back."""
        return self._clock.clock_jumps

    @property
    def stop(self) -> str:
        """Why the arms were stopped for good, empty if they were not."""
        return self._motion.stop

    def flush(self) -> None:
        """Forget every chunk and hold."""
        self._clock.flush()

    def offer(self, chunk: ActionChunk, instant: Instant) -> str:
        """A chunk of poses arrives; why it is refused, empty if it is not."""
        # Drivers that came back since the last turn must not cost a chunk.
        self._look(instant)
        if self._motion.stop:
            return f'while stopped: {self._motion.stop}'
        if self._problem:
            return f'while holding: {self._problem}'
        return self._clock.offer(chunk, instant.now).reason

    def tick(self, instant: Instant) -> None:
        """One turn."""
        self._look(instant)
        newest = self._ingest.newest()
        measured = None if self._problem else self._pose(newest)
        before = self._motion.interventions
        may_move = not self._problem and not self._motion.stop
        turn = instant.now if self._simulated else instant.received
        command = self._motion.advance(instant.now, turn, measured, may_move)
        holding = '' if self._motion.is_running else self._problem or self._waiting()
        if self._motion.stop:
            # Until a reset, which nobody gives here.
            self._clock.flush()
            holding = f'stopped: {self._motion.stop}'
        changed = _changed(before, self._motion.interventions)
        self.ticks.append(Tick(instant, command, newest, holding, changed))

    def _pose(self, newest: Vector | None) -> Vector | None:
        """Where the arms are taken to be.

        In a replay they cannot follow this policy: the bag shows what another one made them do.
        """
        if self._follows and self._motion.command is not None:
            return self._motion.command
        return newest

    def _look(self, instant: Instant) -> None:
        """Whether there are joint states to execute on; without them chunks are forgotten."""
        problem = self._ingest.joint_problem(instant.received, instant.clock)
        newest = self._ingest.newest()
        if not problem and newest is not None:
            problem = implausible(self._profile, self._motion.stage, newest)
        if problem and not self._problem:
            self._clock.flush()
        self._problem = problem


def _changed(before: Interventions, after: Interventions) -> tuple[str, ...]:
    """Kinds that were counted in between."""
    return tuple(
        field.name.replace('_', ' ')
        for field in fields(Interventions)
        if getattr(after, field.name) != getattr(before, field.name)
    )
