# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What flows through the package: observations in, action chunks out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observation:
    """One aligned set of camera images, proprioception and instruction.

    Attributes:
        images: camera name to uint8 RGB image of shape (H, W, 3).
        proprioception: float64 (P,), joint positions in rad and grippers 0 (closed) to 1 (open).
        instruction: the task in words, as the operator typed it.
        stamp: time of the reference image in seconds, on the clock the commands use.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprioception: NDArray[np.float64]
    instruction: str
    stamp: float


@dataclass(frozen=True)
class ActionChunk:
    """``K x A`` joint targets; row i is due at ``start + i * step``.

    Attributes:
        actions: float64 (K, A), joint targets in rad and grippers 0 to 1.
        start: time at which row 0 is due, in seconds.
        step: time between rows in seconds.
        observation_stamp: stamp of the observation the chunk was computed from.
        instruction: the instruction it was computed for.
        checkpoint: identity of the checkpoint that computed it.
    """

    actions: NDArray[np.float64]
    start: float
    step: float
    observation_stamp: float
    instruction: str
    checkpoint: str

    def due(self, row: int) -> float:
        """Time in seconds at which the given row is due."""
        return self.start + row * self.step

    @property
    def end(self) -> float:
        """Time in seconds at which the last row is due."""
        return self.due(len(self.actions) - 1)
