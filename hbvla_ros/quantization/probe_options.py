# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a token-importance probe measures and how its figures become token weights (spec 1.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal['none', 'block', 'action']

_ATTENTION = re.compile(r'(?:^|\.)(?:self_attn|attn)\.[^.]+$')
_TOWER = 'vision_backbone.'
_DECODER = 'language_model.'


@dataclass(frozen=True)
class ProbeOptions:
    """Options of the probe; every field is a plain value and stands in the manifest.

    The defaults are what left the smallest action error on the shipped policy with one sign plane
    and 128 frames: relative error 0.066 (three draws of frames: 0.061 to 0.071) against 0.157
    without a probe. One change at a time: power 1 0.079, attention alone 0.071, samples not
    normalised 0.085, balanced types 0.102 (one draw), the block probe with power 1 0.086. Floors
    from 0.01 to 0.4, clips from 0.99 to 1, 16 probes and leaving out the towers lie within what
    another draw of frames changes, which is about 0.005.

    Attributes:
        kind: 'none' weighs all tokens alike, 'block' is the paper's block-wise gradient, 'action'
            the gradient of the actions themselves.
        power: importance is the gradient's norm to this power; 1 is the paper's, 2 is what a
            quadratic model of the loss asks for (A-5).
        per_sample_normalisation: bring the weights of each sample to mean one; otherwise samples
            whose gradients are larger count for more.
        floor: share of an even weight mixed into every token's, which keeps the Hessian of full
            rank; 0 turns it off.
        clip_quantile: weights are bounded by this quantile of all of them, so that a few tokens
            cannot take over (A-28); 1 turns it off.
        layers: which linear layers of a block get a rectified Hessian (A-21); the others keep the
            plain one.
        vision: whether that holds for the vision towers too, or for the decoder alone.
        balance_types: give every token type of the decoder sequence the same total weight (A-27).
        probes: random projections of the actions of each sample ('action' only).
        gradient_branch: the branch the block's gradient is taken in (A-4), that of the
            full-precision weights or that of the binarized ones ('block' only).
        block_scope: 'attention' probes attention and MLP each as a block of its own, as the paper
            does with the attention; 'layer' takes the whole layer as one block ('block' only).
        provisional: the binarized weights of the block's probe (A-3): those of the method itself
            under the plain Hessian, or the signs with one scale a row ('block' only).
    """

    kind: Kind = 'action'
    power: Literal[1, 2] = 2
    per_sample_normalisation: bool = True
    floor: float = 0.05
    clip_quantile: float = 0.999
    layers: Literal['attention', 'all'] = 'all'
    vision: bool = True
    balance_types: bool = False
    probes: int = 4
    gradient_branch: Literal['full', 'quantized'] = 'full'
    block_scope: Literal['attention', 'layer'] = 'layer'
    provisional: Literal['method', 'rtn'] = 'method'

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number out of its range; names the field and the range.
        """
        if not 0 <= self.floor <= 1:
            raise ValueError(f'floor {self.floor}: use 0 to 1')
        if not 0 < self.clip_quantile <= 1:
            raise ValueError(f'clip_quantile {self.clip_quantile}: use more than 0, up to 1')
        if self.probes < 1:
            raise ValueError(f'probes {self.probes}: use 1 or more')
        if self.power not in (1, 2):
            raise ValueError(f'power {self.power}: use 1 or 2')


# The text of the paper: attention of the decoder only, nothing bounded, nothing normalised.
_PARITY = ProbeOptions(
    kind='block',
    power=1,
    per_sample_normalisation=False,
    floor=0.0,
    clip_quantile=1.0,
    layers='attention',
    vision=False,
    block_scope='attention',
)
PROBE_PRESETS = {
    'default': ProbeOptions(),
    'block': ProbeOptions(kind='block', power=1),
    'parity': _PARITY,
    'none': ProbeOptions(kind='none'),
}


def in_tower(name: str) -> bool:
    """Whether a layer belongs to a vision tower, by its name."""
    return name.startswith(_TOWER)


def in_decoder(name: str) -> bool:
    """Whether a layer belongs to the decoder, by its name; its tokens have types."""
    return name.startswith(_DECODER)


def is_attention(name: str) -> bool:
    """Whether a linear layer is a projection of an attention, by its name."""
    return _ATTENTION.search(name) is not None


def probed_layers(names: Iterable[str], options: ProbeOptions) -> list[str]:
    """Those linear layers that get a rectified Hessian; all others keep the plain one.

    Args:
        names: full names of linear layers.
        options: ``kind``, ``layers`` and ``vision`` are used.
    """
    if options.kind == 'none':
        return []
    return [
        name
        for name in names
        if (options.vision or not in_tower(name))
        and (options.layers == 'all' or is_attention(name))
    ]
