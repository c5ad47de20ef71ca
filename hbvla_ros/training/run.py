# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One training run from a folder of demonstrations to a checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.dataset import (
    Demonstrations,
    dataset_statistics,
    episode_paths,
    episode_seed,
    load_demonstrations,
)
from hbvla_ros.training.loop import Progress, Trainer
from hbvla_ros.training.options import ALOHA_SIM, NetworkSize, TrainingOptions, network_config
from hbvla_ros.training.tensors import to_tensors
from hbvla_ros.training.tokenizer import BEGIN_ID, EMPTY_ID, build_tokenizer
from hbvla_ros.training.warm_start import start_from
from hbvla_ros.vla.export import save_checkpoint, write_json, write_replacing
from hbvla_ros.vla.images import Preprocessor
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.tokens import PromptTokenizer, build_prompt

STATISTICS_KEY = 'aloha_sim'
_SIDE_FILES = '*--*_checkpoint.pt'


def train_policy(
    training_folders: Sequence[Path],
    validation_folders: Sequence[Path],
    out: Path,
    size: NetworkSize,
    options: TrainingOptions,
    progress: Progress,
    resume: bool = False,
    until: int | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train by behaviour cloning and write the checkpoint folder.

    Args:
        training_folders: demonstrations to learn from, of one or several tasks; batches hold as
            many frames of each task, unless the options share them out otherwise.
        validation_folders: demonstrations of the same tasks from other seeds.
        out: checkpoint folder; the log and the resume file go to ``<out>.run`` beside it.
        size: size of the network.
        options: what decides the outcome.
        progress: called every 50 steps.
        resume: go on from the resume file.
        until: stop after this many steps, with the schedule of `options.steps`; default all.
        start: a checkpoint folder whose weights the run begins with; default fresh ones.

    Returns:
        What the model card says: data, seeds, steps, held-out error.

    Raises:
        HbvlaError: no demonstrations, seeds used in both sets, a task in one set only, nothing
            to resume, or a checkpoint that is in the way.
    """
    if not resume and any(out.glob(_SIDE_FILES)):
        raise HbvlaError(f'{out}: holds a checkpoint already; choose another --out, or --resume')
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    config = network_config(size)
    preprocessor = Preprocessor(config.image_size)
    seeds = _check_seeds(training_folders, validation_folders)
    read = partial(
        load_demonstrations,
        cameras=ALOHA_SIM.cameras,
        chunk=ALOHA_SIM.chunk,
        size=size.image_size,
    )
    training = read(training_folders)
    validation = read(validation_folders, auxiliary_names=training.auxiliary_names)
    _check_tasks(training, validation)
    run_folder = out.with_name(out.name + '.run')
    run_folder.mkdir(parents=True, exist_ok=True)
    statistics = _statistics(training, run_folder / 'dataset_statistics.json', resume)
    normaliser = Normaliser(statistics, ALOHA_SIM)
    tokenizer = _tokenizer(training, size.vocabulary, run_folder / 'tokenizer.json', resume)
    rows = config.language.vocab_size
    tokenize = PromptTokenizer(tokenizer, BEGIN_ID, EMPTY_ID, rows)
    network = OpenVLANetwork(config, ALOHA_SIM)
    # Before the trainer copies the weights into its average.
    started_from = None if start is None else start_from(start, network, tokenizer)
    trainer = Trainer(
        network,
        to_tensors(training, normaliser, tokenize),
        to_tensors(validation, normaliser, tokenize),
        training.tasks,
        training.auxiliary_names,
        torch.tensor([preprocessor.means, preprocessor.stds]).transpose(0, 1).contiguous(),
        options,
        run_folder,
    )
    trainer.started_from = started_from
    if resume:
        trainer.load()
    else:
        (run_folder / 'log.jsonl').unlink(missing_ok=True)
    trainer.train(options.steps if until is None else until, progress)
    trainer.average.swap()
    # A folder holds the side files of one step; these are of an earlier part of this run.
    for path in out.glob(_SIDE_FILES):
        path.unlink()
    # The towers' last blocks have learnt nothing, since no action depends on them.
    used = OpenVLANetwork(config, ALOHA_SIM, inference_only=True).state_dict().keys()
    state = {name: value for name, value in network.state_dict().items() if name in used}
    save_checkpoint(
        network, out, None, statistics, ALOHA_SIM, run_folder / 'tokenizer.json', preprocessor,
        trainer.step, state,
    )  # fmt: skip
    parameters = sum(value.numel() for value in state.values())
    summary = _summary(training, seeds, trainer, size, options, parameters)
    write_json(out / 'training.json', summary)
    return summary


def _statistics(training: Demonstrations, path: Path, resume: bool) -> dict[str, Any]:
    """Statistics of the run: computed at its start and kept, since the network learns in them.

    A resumed run may have more demonstrations, yet its outputs keep their meaning.
    """
    if resume and path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        return kept
    alone = f'_{training.tasks[0]}' if len(training.tasks) == 1 else ''
    statistics = dataset_statistics(training, STATISTICS_KEY + alone)
    write_json(path, statistics)
    return statistics


def _tokenizer(training: Demonstrations, vocabulary: int, path: Path, resume: bool) -> Tokenizer:
    """Tokenizer of the run, kept like its statistics: the words' rows must stay theirs."""
    if resume and path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = build_tokenizer(map(build_prompt, training.instructions), vocabulary)
    write_replacing(path, lambda target: tokenizer.save(str(target)))
    return tokenizer


def _check_seeds(
    training_folders: Sequence[Path], validation_folders: Sequence[Path]
) -> list[list[int]]:
    """First and last seed of each set.

    Raises:
        HbvlaError: a seed is in both, so that the held-out figures would lie.
    """
    training, validation = (
        {episode_seed(path): path for path in episode_paths(folders)}
        for folders in (training_folders, validation_folders)
    )
    shared = training.keys() & validation.keys()
    if shared:
        seed = min(shared)
        raise HbvlaError(
            f'{validation[seed].parent}: seed {seed} is also in {training[seed].parent}; '
            'make validation demonstrations from other seeds'
        )
    return [[min(one), max(one)] for one in (training, validation)]


def _check_tasks(training: Demonstrations, validation: Demonstrations) -> None:
    """Refuse a task that is trained but not validated, or the other way round."""
    for task in sorted(set(training.tasks) ^ set(validation.tasks)):
        there, lacking = ('--data', '--validation')[:: 1 if task in training.tasks else -1]
        raise HbvlaError(
            f'task {task}: in {there}, but not in {lacking}; give demonstrations of it to both'
        )


def _summary(
    training: Demonstrations,
    seeds: list[list[int]],
    trainer: Trainer,
    size: NetworkSize,
    options: TrainingOptions,
    parameters: int,
) -> dict[str, Any]:
    return {
        'steps': trainer.step,
        'started_from': trainer.started_from,
        'validation_action_l1': trainer.validation_error,
        'parameters': parameters,
        'episodes': training.episodes,
        'frames': len(training),
        'tasks': {
            task: {
                'episodes': training.task_episodes[number],
                'frames': int((training.task_index == number).sum()),
                'validation_action_l1': trainer.validation_errors.get(task),
            }
            for number, task in enumerate(training.tasks)
        },
        'instructions': list(training.instructions),
        'training_seeds': seeds[0],
        'validation_seeds': seeds[1],
        'demonstrations_sha256': training.digest,
        'network': vars(size),
        'options': options.to_json(),
        'torch': torch.__version__,
    }
