# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Action heads: regression, diffusion noise predictor and discrete tokens (spec 5.6, 5.7, 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Layer norm, linear, ReLU, added to the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The names ffn.0 and ffn.1 are those of the checkpoints.
        self.ffn = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU())

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return hidden + self.ffn(hidden)


class ResidualMlp(nn.Module):
    """The head proper: the slots of one step in, one row of the chunk out."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, blocks: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(input_dim)
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(hidden_dim) for _ in range(blocks))
        self.layer_norm2 = nn.LayerNorm(hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, output_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        hidden = functional.relu(self.fc1(self.layer_norm1(hidden)))
        for block in self.mlp_resnet_blocks:
            hidden = block(hidden)
        return self.fc2(self.layer_norm2(hidden))


class RegressionHead(nn.Module):
    """The L1 head; its tensors are named ``model.…``."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, blocks: int) -> None:
        super().__init__()
        self.model = ResidualMlp(input_dim, hidden_dim, output_dim, blocks)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, K, slots per step * D) -> normalised actions (B, K, A)."""
        return self.model(hidden)


class _NoisePredictor(nn.Module):
    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, blocks: int) -> None:
        super().__init__()
        self.mlp_resnet = ResidualMlp(input_dim, hidden_dim, output_dim, blocks)


class DiffusionHead(nn.Module):
    """The same network predicting noise; its tensors are named ``noise_predictor.…``."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, blocks: int) -> None:
        super().__init__()
        self.noise_predictor = _NoisePredictor(input_dim, hidden_dim, output_dim, blocks)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, K, slots per step * D) -> predicted noise (B, K, A)."""
        return self.noise_predictor.mlp_resnet(hidden)


def timestep_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of diffusion time steps, float32: (B,) -> (B, dim)."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
    frequencies = torch.exp(steps * (-math.log(10000.0) / (half - 1)))
    angles = timestep.float().unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@dataclass(frozen=True)
class DiffusionSchedule:
    """DDIM over the squared-cosine schedule, noise prediction, sample clipped to +-1.

    Attributes:
        alphas: one value a train step, the cumulative products in float32.
        timesteps: the time steps of one inference, descending.
        stride: distance between two of them.
    """

    alphas: tuple[float, ...]
    timesteps: tuple[int, ...]
    stride: int

    @classmethod
    def squared_cosine(cls, train_steps: int, inference_steps: int) -> DiffusionSchedule:
        """Schedule of spec section 6 with leading spacing and no offset."""

        def level(position: float) -> float:
            return math.cos((position + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [
            min(1 - level((step + 1) / train_steps) / level(step / train_steps), 0.999)
            for step in range(train_steps)
        ]
        # Plain numbers, so that a network built on the meta device has a usable schedule.
        kept = np.float32(1.0) - np.array(betas, dtype=np.float32)
        alphas = tuple(np.cumprod(kept, dtype=np.float32).tolist())
        stride = train_steps // inference_steps
        timesteps = tuple(step * stride for step in reversed(range(inference_steps)))
        return cls(alphas, timesteps, stride)

    def step(self, sample: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Sample of the previous time step from this one and its predicted noise."""
        alpha = self.alphas[timestep]
        earlier = timestep - self.stride
        alpha_earlier = self.alphas[earlier] if earlier >= 0 else 1.0
        clean = (sample - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
        # The noise is not recomputed after clipping, as in the reference.
        clean = clean.clamp(-1, 1)
        return math.sqrt(alpha_earlier) * clean + math.sqrt(1 - alpha_earlier) * noise


def discrete_values(logits: Tensor, vocabulary: int, bins: int) -> Tensor:
    """Centre of the bin each most likely token stands for: (..., vocab) -> float32 (...)."""
    identifiers = logits.argmax(dim=-1)
    indices = (vocabulary - identifiers - 1).clamp(0, bins - 2)
    edges = torch.linspace(-1, 1, bins, dtype=torch.float64, device=logits.device)
    return (0.5 * (edges[:-1] + edges[1:]))[indices].float()
