# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What brings patches, proprioception and noisy actions to the language model's width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Projector(nn.Module):
    """Three layers with exact GELUs, applied per patch (spec section 5.2)."""

    def __init__(self, vision_dim: int, language_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_dim, 4 * vision_dim)
        self.fc2 = nn.Linear(4 * vision_dim, language_dim)
        self.fc3 = nn.Linear(language_dim, language_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, vision_dim) -> (B, N, language_dim)."""
        hidden = functional.gelu(self.fc1(features))
        return self.fc3(functional.gelu(self.fc2(hidden)))


class InputProjector(nn.Module):
    """Two layers with an exact GELU, for proprioception or single noisy action values."""

    def __init__(self, input_dim: int, language_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_dim, language_dim)
        self.fc2 = nn.Linear(language_dim, language_dim)

    def forward(self, values: Tensor) -> Tensor:
        """(..., input_dim) -> (..., language_dim)."""
        return self.fc2(functional.gelu(self.fc1(values)))
