# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.targets import (
    COMPONENTS,
    block_chains,
    check_components,
    component_of_layer,
    quantized_linears,
    resident_linears,
)
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.platform import PLATFORMS

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'


@pytest.fixture(scope='module')
def networks() -> dict[str, nn.Module]:
    found = {}
    for name, platform in (('aloha_film_l1', 'aloha'), ('libero_diffusion', 'libero')):
        checkpoint = Checkpoint.open(GOLDEN / name, PLATFORMS[platform])
        found[name] = build_empty(checkpoint.config, checkpoint.platform)
    return found


def test_what_no_component_holds_stays_as_it_is(networks: dict[str, nn.Module]) -> None:
    for network in networks.values():
        linears = {n for n, module in network.named_modules() if isinstance(module, nn.Linear)}
        kept = linears - set(quantized_linears(network, COMPONENTS))
        assert {name.rpartition('.')[2] for name in kept} <= {'scale', 'shift', 'fc1', 'fc2'}
        assert all(
            '.blocks.' in name or name.startswith('noisy_action_projector.') for name in kept
        )


def test_components_part_the_network(networks: dict[str, nn.Module]) -> None:
    for network in networks.values():
        every = quantized_linears(network, COMPONENTS)
        parts = [quantized_linears(network, [component]) for component in COMPONENTS]
        assert all(parts) and sum(map(len, parts)) == len(every)
        assert set(every) == {name for part in parts for name in part}
        for component, part in zip(COMPONENTS, parts, strict=True):
            assert {component_of_layer(name) for name in part} == {component}
        assert quantized_linears(network) == [n for n in every if n in {*parts[0], *parts[1]}]


def test_chains_hold_all_blocks_whatever_is_quantized(networks: dict[str, nn.Module]) -> None:
    for network in networks.values():
        whole = block_chains(network, COMPONENTS)
        assert len(whole) == 3
        for components in (('vision',), ('language',), ('projector', 'head')):
            chains = block_chains(network, components)
            assert [[b for b, _ in c] for c in chains] == [[b for b, _ in c] for c in whole]
            inside = [name for chain in chains for _, names in chain for name in names]
            outside = [n for names in resident_linears(network, components).values() for n in names]
            assert sorted(inside + outside) == sorted(quantized_linears(network, components))
    outside = resident_linears(networks['aloha_film_l1'], COMPONENTS)
    assert list(outside) == ['projector', 'action_head', 'proprio_projector']


def test_components_are_checked_and_ordered() -> None:
    assert check_components(('head', 'vision', 'head')) == ('vision', 'head')
    with pytest.raises(HbvlaError, match='--components arm: is unknown; use some of vision,lang'):
        check_components(('vision', 'arm'))
    with pytest.raises(HbvlaError, match='--components: name at least one of'):
        check_components(())
    assert component_of_layer('language_model.lm_head') is None
    assert component_of_layer('vision_backbone.featurizer.blocks.0.scale') is None
