# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which linear layers are quantized, and in which order."""

from __future__ import annotations

import re

from torch import nn

_TOWER = r'vision_backbone\.(?:featurizer|fused_featurizer)\.blocks\.\d+'
_DECODER = r'language_model\.model\.layers\.\d+'
_TARGETS = re.compile(
    rf'(?P<tower>{_TOWER})\.(?:attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)'
    rf'|(?P<decoder>{_DECODER})\.(?:self_attn|mlp)\.\w+_proj'
)

Chain = list[tuple[str, list[str]]]


def quantized_linears(network: nn.Module) -> list[str]:
    """Names of the linear layers to quantize, in forward order.

    All of the vision towers' blocks and of the decoder layers; projector, heads, embeddings,
    FiLM layers and norms stay as they are.
    """
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and _TARGETS.fullmatch(name)
    ]


def block_chains(network: nn.Module) -> list[Chain]:
    """The blocks in forward order, one chain for each tower and one for the decoder.

    Returns:
        Chains of (block name, names of its linear layers); inside a chain the output of a block
        is the first input of the next one.
    """
    chains: dict[str, dict[str, list[str]]] = {}
    for name in quantized_linears(network):
        match = _TARGETS.fullmatch(name)
        assert match is not None, 'quantized_linears returns only names that match'
        block = match['tower'] or match['decoder']
        stack = block.rpartition('.')[0]
        chains.setdefault(stack, {}).setdefault(block, []).append(name)
    return [list(blocks.items()) for blocks in chains.values()]
