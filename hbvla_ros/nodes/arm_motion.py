# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The motion of the arms with what the arm node has around it: chunks from topics, a wire."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control import arm_motion
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.adapters import CommandWriter
from hbvla_ros.nodes.chunk_inbox import ChunkInbox

Vector = NDArray[np.float64]


class ArmMotion(arm_motion.ArmMotion):
    """As :class:`hbvla_ros.control.arm_motion.ArmMotion`, and its commands are sent.

    Args:
        profile: the robot.
        chunks: what may be executed.
        writer: where commands go.
    """

    def __init__(self, profile: RobotProfile, chunks: ChunkInbox, writer: CommandWriter) -> None:
        """Start without a command.

        Raises:
            HbvlaError: the limits of the profile allow no braking in reasonable time.
        """
        super().__init__(profile, chunks.clock)
        self._chunks, self._writer = chunks, writer

    def forget(self) -> None:
        """Start over from the measured pose; the wait for the next chunk begins now."""
        self._chunks.begin()
        super().forget()

    def step(
        self, now: float, turn: float, measured: Vector | None, may_move: bool, is_silent: bool
    ) -> None:
        """One control period, see :meth:`advance`; with ``is_silent`` nothing is sent of it."""
        command = self.advance(now, turn, measured, may_move)
        if command is not None and not is_silent:
            self._writer.send(command, now, not self.is_running, lambda: self.ahead(now))
