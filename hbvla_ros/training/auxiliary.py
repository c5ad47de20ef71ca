# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Auxiliary losses that teach the towers where things are; dropped after training.

Behaviour cloning alone finds the objects slowly. Each tower predicts the positions of objects and
tools from its patch features, and the language model predicts, from the states the action head
reads, which object is meant and where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbvla_ros.vla.config import NetworkConfig
from hbvla_ros.vla.network import Encoded


class AuxiliaryHeads(nn.Module):
    """Predictions of the auxiliary columns of the demonstrations.

    Args:
        config: the network whose features are read.
        patches: patches of all cameras together.
        names: auxiliary columns; those with ``target`` in the name depend on the instruction and
            are asked of the language model alone.
        mean: float (X,), mean of the columns.
        deviation: float (X,), standard deviation of the columns.
    """

    def __init__(
        self,
        config: NetworkConfig,
        patches: int,
        names: Sequence[str],
        mean: Tensor,
        deviation: Tensor,
    ) -> None:
        super().__init__()
        self._split = config.featurizer.embed_dim
        self._scene = [i for i, name in enumerate(names) if 'target' not in name]
        widths = (config.featurizer.embed_dim, config.fused_featurizer.embed_dim)
        self.towers = nn.ModuleList(_head(patches * w, len(self._scene)) for w in widths)
        self.language = _head(config.language.hidden_size, len(names))
        self.register_buffer('mean', mean)
        self.register_buffer('deviation', deviation)

    def forward(self, encoded: Encoded, columns: Tensor, known: Tensor) -> Tensor:
        """Sum of the smooth L1 losses, each a mean over what is known.

        Args:
            encoded: what the network's `encode` returned.
            columns: float (B, X), the true values.
            known: bool (B, X), False where there is none.
        """
        assert isinstance(self.mean, Tensor) and isinstance(self.deviation, Tensor)
        wanted = (columns - self.mean) / self.deviation
        features = encoded.features.split(
            [self._split, encoded.features.shape[-1] - self._split], dim=-1
        )
        losses = [
            _masked_loss(head(part.flatten(1)), wanted[:, self._scene], known[:, self._scene])
            for head, part in zip(self.towers, features, strict=True)
        ]
        predicted = self.language(encoded.action_hidden_states.mean(1))
        losses.append(_masked_loss(predicted, wanted, known))
        return torch.stack(losses).sum()


def column_statistics(columns: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (X,) of columns (N, X) over the rows where each is known."""
    count = known.sum(0)
    mean = torch.where(known, columns, 0.0).sum(0) / count.clamp(min=1)
    squares = torch.where(known, (columns - mean).square(), 0.0).sum(0)
    return mean, (squares / (count - 1).clamp(min=1)).sqrt().clamp(min=1e-3)


def _masked_loss(predicted: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    each = functional.smooth_l1_loss(predicted.float(), wanted, reduction='none')
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def _head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 256), nn.GELU(),
                         nn.Linear(256, outputs))  # fmt: skip
