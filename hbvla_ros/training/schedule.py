# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Learning rate over a run, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


def learning_rate_factor(step: int, steps: int, warm_up: int, decay: float) -> float:
    """Factor on the base rate: linear warm-up, flat, cosine to zero over the last share.

    Args:
        step: optimizer steps done so far.
        steps: steps of the whole run.
        warm_up: steps of the linear rise.
        decay: share of the run, at its end, over which the rate falls.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    start = steps * (1.0 - decay)
    if step <= start:
        return 1.0
    progress = min(1.0, (step - start) / max(1.0, steps - start))
    return 0.5 * (1.0 + math.cos(math.pi * progress))


class WeightAverage:
    """Exponential running average of parameters; the average is what is evaluated and saved."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float) -> None:
        self._live = list(parameters)
        self._decay = decay
        self._updates = 0
        self.values = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Fold the present weights in; early on the average follows faster."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self.values, [p.detach() for p in self._live], 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live weights and the average; calling it twice restores both."""
        for average, parameter in zip(self.values, self._live, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {'values': self.values, 'updates': self._updates}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave."""
        for mine, saved in zip(self.values, state['values'], strict=True):
            mine.copy_(saved)
        self._updates = int(state['updates'])
