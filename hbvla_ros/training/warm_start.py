# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Starting from the weights of a policy that was trained before, on other tasks perhaps."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

_WORDS = 'language_model.model.embed_tokens.weight'


@torch.no_grad()
def start_from(folder: Path, network: OpenVLANetwork, tokenizer: tokenizers.Tokenizer) -> str:
    """Fill a fresh network with the weights of a full-precision folder.

    Words are matched by what they spell, since each run makes a tokenizer of its own; words that
    the folder does not know keep their fresh values. So do the parts that no action depends on,
    which no folder holds. Statistics are not taken: the network learns the new units.

    Args:
        folder: the checkpoint.
        network: filled in place.
        tokenizer: of the new run.

    Returns:
        Identity of the folder.

    Raises:
        HbvlaError: not a readable checkpoint, or of another size.
    """
    checkpoint = Checkpoint.open(folder, resolve_platform(folder, None))
    acting = build_empty(network.config, network.platform, inference_only=True)
    names = {name for name, _ in acting.named_parameters()}
    for name in sorted(names ^ set(checkpoint.names())):
        raise HbvlaError(
            f'{folder}: {name} is in one of the two networks only; give --layers as that policy had'
        )
    parameters = dict(network.named_parameters())
    for name in names:
        parameter = parameters[name]
        if name == _WORDS:
            copied = _common_words(folder, tokenizer, parameter, checkpoint.tensor(name))
            parameter.copy_(copied)
            continue
        if checkpoint.shape(name) != tuple(parameter.shape):
            raise HbvlaError(
                f'{folder}: {name} is {checkpoint.shape(name)}, this network needs '
                f'{tuple(parameter.shape)}; give --layers and --hidden as that policy had'
            )
        parameter.copy_(checkpoint.tensor(name))
    checkpoint.release()
    return checkpoint.identity


def _common_words(
    folder: Path, tokenizer: tokenizers.Tokenizer, fresh: Tensor, stored: Tensor
) -> Tensor:
    """Rows (V, D) of the word embedding, those of known words from the folder."""
    path = folder / 'tokenizer.json'
    try:
        known = tokenizers.Tokenizer.from_file(str(path)).get_vocab()
    except Exception as error:  # the library raises bare Exception
        raise HbvlaError(f'{path}: not a readable tokenizer ({error})') from None
    if stored.shape[1] != fresh.shape[1]:
        raise HbvlaError(
            f'{folder}: words of width {stored.shape[1]}, this network has {fresh.shape[1]}; '
            'give --hidden as that policy had'
        )
    words = fresh.clone()
    for word, row in tokenizer.get_vocab().items():
        if word in known:
            words[row] = stored[known[word]].to(words.dtype)
    return words
