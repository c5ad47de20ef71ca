# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning: L1 loss on normalised action chunks, resumable, with a held-out curve."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.augmentation import pixel_values
from hbvla_ros.training.auxiliary import AuxiliaryHeads, column_statistics
from hbvla_ros.training.batches import batch_counts
from hbvla_ros.training.optimizer import Optimizers
from hbvla_ros.training.options import TrainingOptions
from hbvla_ros.training.schedule import WeightAverage, learning_rate_factor
from hbvla_ros.training.tensors import Tensors
from hbvla_ros.vla.export import write_replacing
from hbvla_ros.vla.network import OpenVLANetwork

# Called with the step, the steps asked for and the numbers of this step.
Progress = Callable[[int, int, dict[str, float]], None]


class Trainer:
    """One run: network, auxiliary heads, optimizer, average and random state.

    Args:
        network: the policy network with fresh weights.
        training: demonstrations to learn from.
        validation: demonstrations of other seeds.
        tasks: names of the tasks of both.
        auxiliary_names: names of the auxiliary columns.
        image_statistics: float (2, 2, 3), mean and deviation of each tower's channels.
        options: what decides the outcome.
        folder: where the log and the resume file go.

    Raises:
        HbvlaError: a task without a frame in a batch, or a share of a task that is not there.
    """

    def __init__(
        self,
        network: OpenVLANetwork,
        training: Tensors,
        validation: Tensors,
        tasks: tuple[str, ...],
        auxiliary_names: tuple[str, ...],
        image_statistics: Tensor,
        options: TrainingOptions,
        folder: Path,
    ) -> None:
        self.network, self.options, self.folder = network, options, folder
        self._training, self._validation, self._tasks = training, validation, tasks
        self._rows, self._held_out = training.task_rows(), validation.task_rows()
        self._counts = batch_counts(options.batch, tasks, options.shares)
        self._image_statistics = image_statistics
        cameras, patches = training.frames.shape[1], network.config.featurizer.patches
        self.auxiliary = AuxiliaryHeads(
            network.config,
            cameras * patches,
            auxiliary_names,
            *column_statistics(training.auxiliary, training.known),
        )
        self._parameters = [*network.parameters(), *self.auxiliary.parameters()]
        self._optimizers = Optimizers(network, [self.auxiliary], options)
        self.average = WeightAverage(network.parameters(), options.averaging)
        self._generator = torch.Generator().manual_seed(options.seed)
        self.step = 0
        self.started_from: str | None = None
        self.validation_error = math.nan
        self.validation_errors: dict[str, float] = {}
        self._losses: Callable[..., tuple[Tensor, Tensor]] = self._compute_losses
        if options.compile:
            self._losses = torch.compile(self._compute_losses)

    def _compute_losses(
        self,
        pixels: Tensor,
        input_ids: Tensor,
        proprio: Tensor,
        actions: Tensor,
        columns: Tensor,
        known: Tensor,
        padded: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            encoded = self.network.encode(pixels, input_ids, proprio, padded=padded)
            predicted = self.network.decode(encoded.action_hidden_states)
            auxiliary = self.auxiliary(encoded, columns, known)
        return nn.functional.l1_loss(predicted.float(), actions), auxiliary

    def _run_batch(self, data: Tensors, index: Tensor, augment: bool) -> tuple[Tensor, Tensor]:
        rows = data.rows(index)
        pixels = pixel_values(
            rows.pop('frames'),
            self._image_statistics,
            self.options.crop_jitter,
            self._generator if augment else None,
        )
        return self._losses(pixels, *rows.values())

    def _draw(self) -> Tensor:
        """Frames of one batch: of each task its share, however many it has."""
        drawn = [
            rows[torch.randint(len(rows), (count,), generator=self._generator)]
            for rows, count in zip(self._rows, self._counts, strict=True)
        ]
        return torch.cat(drawn)

    def _optimise(self) -> dict[str, float]:
        """One optimizer step; returns the mean losses of its batch."""
        factor = learning_rate_factor(
            self.step, self.options.steps, self.options.warm_up, self.options.decay
        )
        action, auxiliary = self._run_batch(self._training, self._draw(), augment=True)
        (action + self.options.auxiliary_weight * auxiliary).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        rate = self.options.learning_rate * factor
        self._optimizers.step(rate)
        self.average.update()
        self.step += 1
        return {'action_l1': action.item(), 'auxiliary': auxiliary.item(), 'rate': rate}

    def train(self, until: int, progress: Progress, validate_every: int = 500) -> None:
        """Run optimizer steps up to `until`, logging and keeping a resume file on the way."""
        began, first = time.monotonic(), self.step
        if self.step >= until:
            # A run that was stopped after its last step only writes its checkpoint.
            self.validate()
        while self.step < until:
            numbers = self._optimise()
            if self.step % 50 == 0 or self.step == until:
                numbers['seconds_a_step'] = (time.monotonic() - began) / (self.step - first)
                if not math.isfinite(numbers['action_l1']):
                    raise HbvlaError(f'step {self.step}: the loss is not finite; lower --rate')
                if self.step % validate_every == 0 or self.step == until:
                    numbers.update(self.validate())
                    self.save()
                self._log(numbers)
                progress(self.step, until, numbers)

    def validate(self, frames: int = 1024) -> dict[str, float]:
        """Mean L1 of the averaged weights on held-out frames, without augmentation.

        Args:
            frames: how many, of all tasks together.

        Returns:
            `validation_action_l1`, the mean over the tasks; of several tasks, each as well.
        """
        self.average.swap()
        self.validation_errors = {
            task: self._task_error(rows, max(1, frames // len(self._tasks)))
            for task, rows in zip(self._tasks, self._held_out, strict=True)
        }
        self.average.swap()
        self.validation_error = sum(self.validation_errors.values()) / len(self._tasks)
        numbers = {'validation_action_l1': self.validation_error}
        if len(self._tasks) > 1:
            numbers |= {f'{task}_action_l1': x for task, x in self.validation_errors.items()}
        return numbers

    @torch.no_grad()
    def _task_error(self, rows: Tensor, frames: int) -> float:
        """Mean L1 over frames of one task."""
        total, batches = 0.0, 0
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        for index in rows[order][:frames].split(self.options.batch):
            # A last partial batch would make the compiled step specialise once more.
            if len(index) == self.options.batch or batches == 0:
                total += self._run_batch(self._validation, index, augment=False)[0].item()
                batches += 1
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
            'started_from': self.started_from,
            'network': self.network.state_dict(),
            'auxiliary': self.auxiliary.state_dict(),
            'optimizer': self._optimizers.state(),
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
            self._optimizers.load(state['optimizer'])
        except FileNotFoundError as error:
            raise HbvlaError(f'{self.resume_path}: not there; leave out --resume') from error
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise HbvlaError(f'{self.resume_path}: of another network; delete it') from error
        self.average.load(state['average'])
        self._generator.set_state(state['generator'])
        self.step = int(state['step'])
        self.started_from = state.get('started_from')
