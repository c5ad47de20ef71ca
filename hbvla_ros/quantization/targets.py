# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which linear layers are quantized, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from hbvla_ros.errors import HbvlaError

# What ``--components`` takes (the paper's Fig. 4): a pattern of the linear layers of each.
_PATTERNS = {
    'vision': r'vision_backbone\.(?:featurizer|fused_featurizer)\.blocks\.\d+\.'
    r'(?:attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)',
    'language': r'language_model\.model\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj',
    'projector': r'projector\.fc\d',
    'head': r'action_head\..+|proprio_projector\.fc\d',
}
COMPONENTS = tuple(_PATTERNS)
DEFAULT_COMPONENTS = ('vision', 'language')
_BLOCK = re.compile(
    r'(vision_backbone\.(?:featurizer|fused_featurizer)\.blocks|language_model\.model\.layers)'
    r'\.\d+'
)

Chain = list[tuple[str, list[str]]]


def check_components(components: Sequence[str]) -> tuple[str, ...]:
    """The components in their usual order, each once.

    Raises:
        HbvlaError: unknown, or none at all.
    """
    for component in components:
        if component not in _PATTERNS:
            raise HbvlaError(
                f'--components {component}: is unknown; use some of {",".join(COMPONENTS)}'
            )
    if not components:
        raise HbvlaError(f'--components: name at least one of {",".join(COMPONENTS)}')
    return tuple(name for name in COMPONENTS if name in components)


def component_of_layer(name: str) -> str | None:
    """The component a linear layer can be quantized with; None for those that never are.

    Embeddings, token head, FiLM layers and the projector of noisy actions (one input) stay.
    """
    for component, pattern in _PATTERNS.items():
        if re.fullmatch(pattern, name):
            return component
    return None


def quantized_linears(
    network: nn.Module, components: Sequence[str] = DEFAULT_COMPONENTS
) -> list[str]:
    """Names of the linear layers to quantize, in the order of the network's modules.

    Args:
        network: whole network, on any device.
        components: some of ``COMPONENTS``.
    """
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and component_of_layer(name) in components
    ]


def block_chains(network: nn.Module, components: Sequence[str] = DEFAULT_COMPONENTS) -> list[Chain]:
    """The blocks in forward order, one chain for each tower and one for the decoder.

    Args:
        network: whole network, on any device.
        components: of which linear layers are listed.

    Returns:
        Chains of (block name, names of its linear layers to quantize); inside a chain the output
        of a block is the first input of the next one. All blocks are there, also those with
        nothing to quantize.
    """
    chains: dict[str, dict[str, list[str]]] = {}
    for name, _ in network.named_modules():
        match = _BLOCK.fullmatch(name)
        if match is not None:
            chains.setdefault(match[1], {})[name] = []
    for name in quantized_linears(network, components):
        match = _BLOCK.match(name)
        if match is not None:
            chains[match[1]][match[0]].append(name)
    return [list(blocks.items()) for blocks in chains.values()]


def resident_linears(network: nn.Module, components: Sequence[str]) -> dict[str, list[str]]:
    """Linear layers to quantize that are in no block, by the module they belong to.

    Args:
        network: whole network, on any device.
        components: of which linear layers are listed.

    Returns:
        'projector', 'proprio_projector' and 'action_head' to their layers, as far as there are.
    """
    found: dict[str, list[str]] = {}
    for name in quantized_linears(network, components):
        if _BLOCK.match(name) is None:
            found.setdefault(name.partition('.')[0], []).append(name)
    return found
