# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstrations as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        tokens: for each instruction int64 (T,), of its own length.
        instruction: int64 (N,).
        task: int64 (N,).
    """

    frames: Tensor
    proprioception: Tensor
    actions: Tensor
    auxiliary: Tensor
    known: Tensor
    tokens: tuple[Tensor, ...]
    instruction: Tensor
    task: Tensor

    def batches(self, index: Tensor) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """The rows of one batch, parted by the length of their prompts.

        A prompt has no padding, in deployment either, so a pass takes prompts of one length.

        Args:
            index: int64 (B,) frames.

        Yields:
            the share of the batch and its inputs.
        """
        lengths = torch.tensor([len(row) for row in self.tokens])[self.instruction[index]]
        for length in lengths.unique():
            part = index[lengths == length]
            yield (
                len(part) / len(index),
                {
                    'frames': self.frames[part],
                    'proprio': self.proprioception[part],
                    'actions': self.actions[part],
                    'auxiliary': self.auxiliary[part],
                    'known': self.known[part],
                    'input_ids': torch.stack([self.tokens[i] for i in self.instruction[part]]),
                },
            )

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
        tuple(torch.tensor(tokenize(text)) for text in demonstrations.instructions),
        torch.from_numpy(demonstrations.instruction_index),
        torch.from_numpy(demonstrations.task_index),
    )
