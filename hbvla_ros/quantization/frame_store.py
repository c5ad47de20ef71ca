# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Frames of the refinement: many, so they stay as the cameras gave them until they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hbvla_ros.quantization.calibration_frames import Frame
from hbvla_ros.quantization.network_inputs import NetworkInputs

# uint8 (H, W, 3) to float32 (6, H, W).
Normalise = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class FrameStore:
    """Frames as uint8 images; what the network takes is made of them batch by batch.

    As float32 for two towers a frame takes eight times as much, and the refinement wants thousands.

    Args:
        normalise: of the policy's image pipeline.

    Attributes:
        lengths: tokens of each frame's prompt; frames of one batch must share theirs.
    """

    def __init__(self, normalise: Normalise) -> None:
        """Start with no frame."""
        self._normalise = normalise
        self._images: list[tuple[NDArray[np.uint8], ...]] = []
        self._ids: list[list[int]] = []
        self._proprio: list[NDArray[np.float32] | None] = []

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each frame's prompt."""
        return [len(ids) for ids in self._ids]

    def add(self, frames: Sequence[Frame]) -> None:
        """Keep frames, after those that are there."""
        for frame in frames:
            # Copies: a crop is a view that would keep the whole picture alive.
            self._images.append(tuple(np.array(image) for image in frame.images.values()))
            self._ids.append(frame.ids)
            proprio = frame.proprio
            self._proprio.append(None if proprio is None else proprio.astype(np.float32))

    def inputs(self, rows: Sequence[int]) -> NetworkInputs:
        """A batch of some frames, in their order.

        Args:
            rows: numbers of frames whose prompts have the same length.

        Returns:
            The same values as those of calibration; without noise, which an L1 head does not take.
        """
        pixels = [
            np.concatenate([self._normalise(image) for image in self._images[row]]) for row in rows
        ]
        proprio = [values for row in rows if (values := self._proprio[row]) is not None]
        return NetworkInputs(
            torch.from_numpy(np.stack(pixels)),
            torch.tensor([self._ids[row] for row in rows]),
            torch.from_numpy(np.stack(proprio)) if proprio else None,
            None,
        )
