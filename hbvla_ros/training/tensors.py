# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstrations as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.training.dataset import Demonstrations
from hbvla_ros.vla.normalisation import Normaliser


@dataclass(frozen=True)
class Tensors:
    """Demonstrations ready for the network; frames stay uint8.

    Attributes:
        frames: uint8 (N, cameras, S, S, 3).
        proprioception: float32 (N, P), normalised.
        actions: float32 (N, K, A), normalised.
        auxiliary: float32 (N, X).
        known: bool (N, X), which of those values there are.
        input_ids: int64 (I, T), the prompt of each instruction, filled up after BOS.
        padded: int64 (I,), by how many ids.
        instruction: int64 (N,) into those.
        task: int64 (N,).
    """

    frames: Tensor
    proprioception: Tensor
    actions: Tensor
    auxiliary: Tensor
    known: Tensor
    input_ids: Tensor
    padded: Tensor
    instruction: Tensor
    task: Tensor

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """The inputs of one batch, int64 (B,) frames; without `padded` where no prompt needs it."""
        prompts = self.instruction[index]
        rows = {
            'frames': self.frames[index],
            'input_ids': self.input_ids[prompts],
            'proprio': self.proprioception[index],
            'actions': self.actions[index],
            'auxiliary': self.auxiliary[index],
            'known': self.known[index],
        }
        return rows | {'padded': self.padded[prompts]} if self.padded.any() else rows

    def task_rows(self) -> list[Tensor]:
        """The frames of each task, int64."""
        return [(self.task == task).nonzero()[:, 0] for task in range(int(self.task.max()) + 1)]


def to_tensors(
    demonstrations: Demonstrations, normaliser: Normaliser, tokenize: Callable[[str], list[int]]
) -> Tensors:
    """Normalise and tokenize a set of demonstrations."""
    return Tensors(
        torch.from_numpy(demonstrations.frames),
        torch.from_numpy(normaliser.proprio(demonstrations.proprioception)).float(),
        torch.from_numpy(normaliser.normalise_actions(demonstrations.chunks)).float(),
        torch.from_numpy(demonstrations.auxiliary),
        torch.from_numpy(demonstrations.auxiliary_known),
        *_padded([tokenize(text) for text in demonstrations.instructions]),
        torch.from_numpy(demonstrations.instruction_index),
        torch.from_numpy(demonstrations.task_index),
    )


def _padded(prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Prompts as one int64 (I, T) and how many ids (I,) fill each up; which id does not matter."""
    longest = max(map(len, prompts))
    counts = [longest - len(prompt) for prompt in prompts]
    rows = [
        [*prompt[:1], *prompt[:1] * count, *prompt[1:]]
        for prompt, count in zip(prompts, counts, strict=True)
    ]
    return torch.tensor(rows), torch.tensor(counts)
