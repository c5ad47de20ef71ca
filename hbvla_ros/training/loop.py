# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning: L1 loss on normalised action chunks, resumable, with a held-out curve."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.augmentation import pixel_values
from hbvla_ros.training.auxiliary import AuxiliaryHeads
from hbvla_ros.training.dataset import Demonstrations
from hbvla_ros.training.options import TrainingOptions
from hbvla_ros.training.schedule import WeightAverage, learning_rate_factor
from hbvla_ros.vla.export import write_replacing
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.normalisation import Normaliser

# Called with the step, the steps asked for and the numbers of this step.
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Tensors:
    """Demonstrations ready for the network; frames stay uint8.

    Attributes:
        frames: uint8 (N, cameras, S, S, 3).
        proprioception: float32 (N, P), normalised.
        actions: float32 (N, K, A), normalised.
        auxiliary: float32 (N, X).
        tokens: int64 (instructions, T), one row an instruction.
        instruction: int64 (N,).
    """

    frames: Tensor
    proprioception: Tensor
    actions: Tensor
    auxiliary: Tensor
    tokens: Tensor
    instruction: Tensor

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """The rows of one batch."""
        return {
            'frames': self.frames[index],
            'proprio': self.proprioception[index],
            'actions': self.actions[index],
            'auxiliary': self.auxiliary[index],
            'input_ids': self.tokens[self.instruction[index]],
        }


def to_tensors(
    demonstrations: Demonstrations, normaliser: Normaliser, tokenize: Callable[[str], list[int]]
) -> Tensors:
    """Normalise and tokenize a set of demonstrations.

    Raises:
        HbvlaError: the instructions differ in token count, which one batch cannot hold.
    """
    tokens = [tokenize(text) for text in demonstrations.instructions]
    if len({len(row) for row in tokens}) != 1:
        counts = {t: len(row) for t, row in zip(demonstrations.instructions, tokens, strict=True)}
        raise HbvlaError(f'instructions differ in token count ({counts}); train on one task each')
    return Tensors(
        torch.from_numpy(demonstrations.frames),
        torch.from_numpy(normaliser.proprio(demonstrations.proprioception)).float(),
        torch.from_numpy(normaliser.normalise_actions(demonstrations.chunks)).float(),
        torch.from_numpy(demonstrations.auxiliary),
        torch.tensor(tokens),
        torch.from_numpy(demonstrations.instruction_index),
    )


class Trainer:
    """One run: network, auxiliary heads, optimizer, average and random state.

    Args:
        network: the policy network with fresh weights.
        training: demonstrations to learn from.
        validation: demonstrations of other seeds.
        auxiliary_names: names of the auxiliary columns.
        image_statistics: float (2, 2, 3), mean and deviation of each tower's channels.
        options: what decides the outcome.
        folder: where the log and the resume file go.
    """

    def __init__(
        self,
        network: OpenVLANetwork,
        training: Tensors,
        validation: Tensors,
        auxiliary_names: tuple[str, ...],
        image_statistics: Tensor,
        options: TrainingOptions,
        folder: Path,
    ) -> None:
        self.network, self.options, self.folder = network, options, folder
        self._training, self._validation = training, validation
        self._image_statistics = image_statistics
        cameras, patches = training.frames.shape[1], network.config.featurizer.patches
        self.auxiliary = AuxiliaryHeads(
            network.config,
            cameras * patches,
            auxiliary_names,
            training.auxiliary.mean(0),
            training.auxiliary.std(0).clamp(min=1e-3),
        )
        self._parameters = [*network.parameters(), *self.auxiliary.parameters()]
        self._optimizer = self._build_optimizer()
        self.average = WeightAverage(network.parameters(), options.averaging)
        self._generator = torch.Generator().manual_seed(options.seed)
        self.step = 0
        self.validation_error = math.nan
        self._losses: Callable[..., tuple[Tensor, Tensor]] = self._compute_losses
        if options.compile:
            self._losses = torch.compile(self._compute_losses)

    def _build_optimizer(self) -> torch.optim.AdamW:
        """Weight decay on matrices only; norms, biases and tokens go without."""
        decayed = [p for p in self._parameters if p.ndim > 1]
        others = [p for p in self._parameters if p.ndim <= 1]
        groups = [
            {'params': decayed, 'weight_decay': self.options.weight_decay},
            {'params': others, 'weight_decay': 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=self.options.learning_rate, betas=(0.9, 0.98), fused=True
        )

    def _compute_losses(
        self, pixels: Tensor, input_ids: Tensor, proprio: Tensor, actions: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            encoded = self.network.encode(pixels, input_ids, proprio)
            predicted = self.network.decode(encoded.action_hidden_states)
            auxiliary = self.auxiliary(encoded, columns)
        return nn.functional.l1_loss(predicted.float(), actions), auxiliary

    def _run_batch(self, rows: dict[str, Tensor], augment: bool) -> tuple[Tensor, Tensor]:
        pixels = pixel_values(
            rows['frames'],
            self._image_statistics,
            self.options.crop_jitter,
            self._generator if augment else None,
        )
        return self._losses(
            pixels, rows['input_ids'], rows['proprio'], rows['actions'], rows['auxiliary']
        )

    def train(self, until: int, progress: Progress, validate_every: int = 500) -> None:
        """Run optimizer steps up to `until`, logging and keeping a resume file on the way."""
        options = self.options
        count, began, first = len(self._training.frames), time.monotonic(), self.step
        while self.step < until:
            factor = learning_rate_factor(self.step, options.steps, options.warm_up, options.decay)
            for group in self._optimizer.param_groups:
                group['lr'] = options.learning_rate * factor
            index = torch.randint(count, (options.batch,), generator=self._generator)
            action, auxiliary = self._run_batch(self._training.batch(index), augment=True)
            loss = action + options.auxiliary_weight * auxiliary
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.average.update()
            self.step += 1
            if self.step % 50 == 0 or self.step == until:
                numbers = {
                    'action_l1': action.item(),
                    'auxiliary': auxiliary.item(),
                    'rate': options.learning_rate * factor,
                    'seconds_a_step': (time.monotonic() - began) / (self.step - first),
                }
                if not math.isfinite(numbers['action_l1']):
                    raise HbvlaError(f'step {self.step}: the loss is not finite; lower --rate')
                if self.step % validate_every == 0 or self.step == until:
                    self.validation_error = self.validate()
                    numbers['validation_action_l1'] = self.validation_error
                    self.save()
                self._log(numbers)
                progress(self.step, until, numbers)

    @torch.no_grad()
    def validate(self, frames: int = 1024) -> float:
        """Mean L1 of the averaged weights on held-out frames, without augmentation."""
        self.average.swap()
        total, batches = 0.0, 0
        order = torch.randperm(
            len(self._validation.frames), generator=torch.Generator().manual_seed(0)
        )
        for index in order[:frames].split(self.options.batch):
            # A last partial batch would make the compiled step specialise once more.
            if len(index) == self.options.batch or batches == 0:
                total += self._run_batch(self._validation.batch(index), augment=False)[0].item()
                batches += 1
        self.average.swap()
        return total / batches

    def _log(self, numbers: dict[str, float]) -> None:
        line = json.dumps({'step': self.step, **{k: round(v, 7) for k, v in numbers.items()}})
        with (self.folder / 'log.jsonl').open('a', encoding='utf-8') as log:
            log.write(line + '\n')

    @property
    def resume_path(self) -> Path:
        """File that a resumed run starts from."""
        return self.folder / 'resume.pt'

    def save(self) -> None:
        """Write the resume file under a temporary name, then rename it."""
        state = {
            'step': self.step,
            'network': self.network.state_dict(),
            'auxiliary': self.auxiliary.state_dict(),
            'optimizer': self._optimizer.state_dict(),
            'average': self.average.state(),
            'generator': self._generator.get_state(),
            'options': self.options.to_json(),
        }
        write_replacing(self.resume_path, lambda target: torch.save(state, target))

    def _check_options(self, saved: dict[str, object]) -> None:
        """The length of a run may change on the way, and the machine; nothing else may."""
        for name, value in self.options.to_json().items():
            if name not in ('steps', 'threads', 'compile') and saved.get(name, value) != value:
                raise HbvlaError(
                    f'{self.resume_path}: made with {name} {saved[name]}, not {value}; '
                    'resume with the same or leave out --resume'
                )

    def load(self) -> None:
        """Go on from the resume file.

        Raises:
            HbvlaError: there is none, or it belongs to another network.
        """
        try:
            state = torch.load(self.resume_path, weights_only=True)
            self._check_options(state['options'])
            self.network.load_state_dict(state['network'])
            self.auxiliary.load_state_dict(state['auxiliary'])
            self._optimizer.load_state_dict(state['optimizer'])
        except FileNotFoundError as error:
            raise HbvlaError(f'{self.resume_path}: not there; leave out --resume') from error
        except (RuntimeError, KeyError, ValueError) as error:
            raise HbvlaError(f'{self.resume_path}: of another network; delete it') from error
        self.average.load(state['average'])
        self._generator.set_state(state['generator'])
        self.step = int(state['step'])
