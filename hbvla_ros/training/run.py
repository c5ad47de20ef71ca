# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One training run from a folder of demonstrations to a checkpoint folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.dataset import Demonstrations, dataset_statistics, load_demonstrations
from hbvla_ros.training.loop import Progress, Trainer, to_tensors
from hbvla_ros.training.options import ALOHA_SIM, NetworkSize, TrainingOptions, network_config
from hbvla_ros.training.tokenizer import BEGIN_ID, EMPTY_ID, build_tokenizer
from hbvla_ros.vla.export import save_checkpoint, write_json
from hbvla_ros.vla.images import Preprocessor
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.normalisation import Normaliser
from hbvla_ros.vla.tokens import PromptTokenizer, build_prompt

STATISTICS_KEY = 'aloha_sim_pick_place'
_SIDE_FILES = '*--*_checkpoint.pt'


def train_policy(
    training_folder: Path,
    validation_folder: Path,
    out: Path,
    size: NetworkSize,
    options: TrainingOptions,
    progress: Progress,
    resume: bool = False,
    until: int | None = None,
) -> dict[str, Any]:
    """Train by behaviour cloning and write the checkpoint folder.

    Args:
        training_folder: demonstrations to learn from.
        validation_folder: demonstrations of other seeds.
        out: checkpoint folder; the log and the resume file go to ``<out>.run`` beside it.
        size: size of the network.
        options: what decides the outcome.
        progress: called every 50 steps.
        resume: go on from the resume file.
        until: stop after this many steps, with the schedule of `options.steps`; default all.

    Returns:
        What the model card says: data, seeds, steps, held-out error.

    Raises:
        HbvlaError: no demonstrations, seeds used in both sets, nothing to resume, or a checkpoint
            that is in the way.
    """
    if not resume and any(out.glob(_SIDE_FILES)):
        raise HbvlaError(f'{out}: holds a checkpoint already; choose another --out, or --resume')
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    config = network_config(size)
    preprocessor = Preprocessor(config.image_size)
    seeds = _check_seeds(training_folder, validation_folder)
    training, validation = (
        load_demonstrations(
            folder,
            ALOHA_SIM.cameras,
            ALOHA_SIM.chunk,
            size.image_size,
        )
        for folder in (training_folder, validation_folder)
    )
    run_folder = out.with_name(out.name + '.run')
    run_folder.mkdir(parents=True, exist_ok=True)
    statistics = _statistics(training, run_folder / 'dataset_statistics.json', resume)
    normaliser = Normaliser(statistics, ALOHA_SIM)
    tokenizer = build_tokenizer(map(build_prompt, training.instructions), size.vocabulary)
    rows = config.language.vocab_size
    tokenize = PromptTokenizer(tokenizer, BEGIN_ID, EMPTY_ID, rows)
    network = OpenVLANetwork(config, ALOHA_SIM)
    trainer = Trainer(
        network,
        to_tensors(training, normaliser, tokenize),
        to_tensors(validation, normaliser, tokenize),
        training.auxiliary_names,
        torch.tensor([preprocessor.means, preprocessor.stds]).transpose(0, 1).contiguous(),
        options,
        run_folder,
    )
    if resume:
        trainer.load()
    else:
        (run_folder / 'log.jsonl').unlink(missing_ok=True)
    trainer.train(options.steps if until is None else until, progress)
    trainer.average.swap()
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer_file = Path(scratch) / 'tokenizer.json'
        tokenizer.save(str(tokenizer_file))
        # A folder holds the side files of one step; these are of an earlier part of this run.
        for path in out.glob(_SIDE_FILES):
            path.unlink()
        # The towers' last blocks have learnt nothing, since no action depends on them.
        used = OpenVLANetwork(config, ALOHA_SIM, inference_only=True).state_dict().keys()
        state = {name: value for name, value in network.state_dict().items() if name in used}
        save_checkpoint(
            network, out, None, statistics, ALOHA_SIM, tokenizer_file, preprocessor, trainer.step,
            state,
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
    statistics = dataset_statistics(training, STATISTICS_KEY)
    write_json(path, statistics)
    return statistics


def _check_seeds(*folders: Path) -> list[list[int]]:
    """First and last seed of each folder.

    Raises:
        HbvlaError: a seed is in two folders, so that the held-out figures would lie.
    """
    sets = [{int(p.stem.split('_')[1]) for p in f.glob('episode_*.npz')} for f in folders]
    shared = set.intersection(*sets)
    if shared:
        raise HbvlaError(
            f'{folders[1]}: seed {min(shared)} is also in {folders[0]}; '
            'make validation demonstrations from other seeds'
        )
    return [[min(s), max(s)] if s else [] for s in sets]


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
        'validation_action_l1': trainer.validation_error,
        'parameters': parameters,
        'episodes': training.episodes,
        'frames': len(training),
        'instructions': list(training.instructions),
        'training_seeds': seeds[0],
        'validation_seeds': seeds[1],
        'demonstrations_sha256': training.digest,
        'network': vars(size),
        'options': options.to_json(),
        'torch': torch.__version__,
    }
