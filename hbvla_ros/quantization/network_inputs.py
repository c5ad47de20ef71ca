# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the network takes, in batches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NetworkInputs:
    """One batch of what the network takes.

    Attributes:
        pixel_values: float32 (B, 6 n, H, W).
        input_ids: int64 (B, T).
        proprio: float32 (B, P) normalised, or None.
        noise: float32 (B, K, A), or None where the head needs none.
    """

    pixel_values: Tensor
    input_ids: Tensor
    proprio: Tensor | None
    noise: Tensor | None

    def arguments(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Arguments of the network's forward pass."""
        return self.pixel_values, self.input_ids, self.proprio, self.noise
