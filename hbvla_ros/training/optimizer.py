# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What is optimised how: Muon for the matrices inside the network, AdamW for the rest.

Muon (Jordan et al. 2024) makes each update of a matrix orthogonal, which suits the weights between
two hidden vectors and nothing else. Its updates are scaled to the size of AdamW's (Liu et al.
2025), so both take the same learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hbvla_ros.training.options import TrainingOptions
from hbvla_ros.vla.network import OpenVLANetwork

# Parts whose matrices lead from hidden vectors to hidden vectors.
_INNER = ('vision_backbone.', 'projector.', 'language_model.model.layers.')


class Optimizers:
    """The optimizers of one run under one learning rate.

    Args:
        network: the policy.
        further: modules trained beside it, by AdamW alone.
        options: `learning_rate`, `weight_decay` and `optimizer`, 'muon' or 'adamw'.
    """

    def __init__(
        self, network: OpenVLANetwork, further: Sequence[nn.Module], options: TrainingOptions
    ) -> None:
        """Sort the parameters."""
        inner = _inner_matrices(network) if options.optimizer == 'muon' else []
        chosen = {id(parameter) for parameter in inner}
        others = [
            parameter
            for module in (network, *further)
            for parameter in module.parameters()
            if id(parameter) not in chosen
        ]
        # Weight decay on matrices only; norms, biases and tokens go without.
        groups = [
            {'params': [p for p in others if p.ndim > 1], 'weight_decay': options.weight_decay},
            {'params': [p for p in others if p.ndim <= 1], 'weight_decay': 0.0},
        ]
        rate = options.learning_rate
        self._all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
        ]
        if inner:
            self._all.append(
                torch.optim.Muon(inner, rate, options.weight_decay, adjust_lr_fn='match_rms_adamw')
            )

    def step(self, rate: float) -> None:
        """Update every parameter with a learning rate, and forget the gradients."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group['lr'] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """What a resumed run needs."""
        return [optimizer.state_dict() for optimizer in self._all]

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore what `state` gave.

        Raises:
            ValueError: of other parameters.
        """
        for optimizer, state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)


def _inner_matrices(network: OpenVLANetwork) -> list[torch.Tensor]:
    return [
        module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(_INNER)
    ]
