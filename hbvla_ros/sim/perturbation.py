# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Smooth disturbances of the executed commands, so that demonstrations show recoveries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_QUIET_EPISODES = 0.12  # share without any disturbance
_ARM_SIZE = 7


@dataclass
class _ArmNoise:
    """What disturbs one arm at present; counters are control steps."""

    burst_left: int = 0
    burst_length: int = 1
    burst: NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))
    gripper_left: int = 0
    gripper: float = 0.0
    hold_left: int = 0
    drift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))


class CommandPerturbation:
    """Noise bursts on both arms, forced grippers and pauses, all drawn from one generator."""

    def __init__(self, random: np.random.Generator) -> None:
        """Draw how strongly this episode is disturbed."""
        self._random = random
        self._scale = 0.0 if random.random() < _QUIET_EPISODES else float(random.uniform(0.4, 1.2))
        self._arms = (_ArmNoise(), _ArmNoise())

    def apply(
        self, command: NDArray[np.float64], measured: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Disturb one command.

        Args:
            command: (14,) what the expert asks for.
            measured: (14,) where the arms are; a pause holds them there.

        Returns:
            (14,) the command to execute.
        """
        if self._scale == 0.0:
            return command
        disturbed = command.copy()
        for number, noise in enumerate(self._arms):
            part = slice(_ARM_SIZE * number, _ARM_SIZE * (number + 1))
            disturbed[part] = self._disturb(noise, command[part], measured[part])
        return disturbed

    def _disturb(
        self, noise: _ArmNoise, command: NDArray[np.float64], measured: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        self._draw(noise)
        disturbed = command.copy()
        if noise.hold_left > 0:
            noise.hold_left -= 1
            disturbed[:6] = measured[:6]
        if noise.burst_left > 0:
            # Half a sine: no jump at either end of a burst.
            phase = noise.burst_left / (noise.burst_length + 1)
            disturbed[:6] += noise.burst * math.sin(math.pi * phase)
            noise.burst_left -= 1
        noise.drift = 0.9 * noise.drift + self._random.normal(0.0, 0.003 * self._scale, 6)
        disturbed[:6] += noise.drift
        if noise.gripper_left > 0:
            noise.gripper_left -= 1
            disturbed[6] = noise.gripper
        return disturbed

    def _draw(self, noise: _ArmNoise) -> None:
        """Start a new burst, forced gripper or pause now and then."""
        random, scale = self._random, self._scale
        if noise.burst_left == 0 and random.random() < 0.08 * scale:
            noise.burst_left = noise.burst_length = int(random.integers(4, 14))
            size = random.uniform(0.01, 0.07) * scale
            noise.burst = random.normal(0.0, size, 6) * np.array([1.0, 0.8, 0.8, 1.0, 1.5, 1.5])
        if noise.gripper_left == 0 and random.random() < 0.02 * scale:
            noise.gripper_left = int(random.integers(4, 12))
            noise.gripper = float(random.choice((0.0, 1.0, random.uniform(0.0, 1.0))))
        if noise.hold_left == 0 and random.random() < 0.015 * scale:
            noise.hold_left = int(random.integers(3, 12))
