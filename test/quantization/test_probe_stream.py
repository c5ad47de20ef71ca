# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One block at a time gives the figures of the whole network at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.calibration import NetworkInputs
from hbvla_ros.quantization.probe_action import action_importance
from hbvla_ros.quantization.probe_options import ProbeOptions
from hbvla_ros.quantization.probe_stream import streamed_action_importance
from hbvla_ros.quantization.targets import block_chains, quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

OPTIONS = ProbeOptions(probes=3)


def inputs(samples: int, words: int, seed: int) -> NetworkInputs:
    generator = torch.Generator().manual_seed(seed)
    return NetworkInputs(
        torch.randn(samples, 12, 32, 32, generator=generator),
        torch.cat([torch.full((samples, 1), 1), torch.full((samples, words), 5)], dim=1),
        torch.rand(samples, 14, generator=generator) * 2 - 1,
        None,
    )


class OneBlock:
    """A network whose blocks have no memory but while they are in use."""

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint.open(folder, resolve_platform(folder))
        self.whole = checkpoint.load_network().requires_grad_(False)
        self.network = checkpoint.load_network().requires_grad_(False)
        self.blocks = [block for chain in block_chains(self.network) for block, _ in chain]
        for block in self.blocks:
            self.network.get_submodule(block).to('meta')
        self.now = 0
        self.most = 0

    @contextmanager
    def materialise(self, block: str) -> Iterator[nn.Module]:
        self.now += 1
        self.most = max(self.most, self.now)
        module = self.network.get_submodule(block)
        state = self.whole.get_submodule(block).state_dict()
        module.load_state_dict(state, assign=True)
        module.requires_grad_(False)
        yield module
        module.to('meta')
        self.now -= 1


@pytest.fixture
def one_block(tiny_checkpoint: Path) -> OneBlock:
    return OneBlock(tiny_checkpoint)


@pytest.mark.parametrize('per_sample', [True, False])
def test_same_weights_and_sensitivities_as_the_whole_network(
    one_block: OneBlock, per_sample: bool
) -> None:
    batches = [inputs(3, 3, 0), inputs(2, 5, 1)]
    types = [torch.tensor([4] + [0] * 8 + [2] + [1] * n + [3] * 6 + [4]) for n in (3, 5)]
    options = dataclasses.replace(
        OPTIONS, balance_types=per_sample, per_sample_normalisation=per_sample
    )
    names = quantized_linears(one_block.whole)
    wanted = action_importance(one_block.whole, names, batches, options, 5, types=types)
    store: dict[tuple[str | int, ...], Tensor] = {}
    steps: list[None] = []
    found = streamed_action_importance(
        one_block.network, one_block.materialise, batches, options, 5, store,
        lambda: steps.append(None), types,
    )  # fmt: skip
    assert set(found.weights) == set(wanted.weights) == set(names)
    for name in names:
        for one, other in zip(found.weights[name], wanted.weights[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert found.sensitivity[name] == pytest.approx(wanted.sensitivity[name], rel=1e-4)
    assert found.tokens == wanted.tokens
    assert not store and len(steps) == 2 * len(one_block.blocks)
    assert one_block.most == 1 and one_block.now == 0


def test_the_network_is_whole_again_even_after_an_error(one_block: OneBlock) -> None:
    network = one_block.network
    before = dict(network.named_modules())

    @contextmanager
    def broken(block: str) -> Iterator[nn.Module]:
        raise HbvlaError(f'{block}: disk full')
        yield

    with pytest.raises(HbvlaError, match='disk full'):
        streamed_action_importance(network, broken, [inputs(1, 3, 0)], OPTIONS, 0)
    streamed_action_importance(network, one_block.materialise, [inputs(1, 3, 0)], OPTIONS, 0)
    after = dict(network.named_modules())
    assert list(before) == list(after) and all(before[n] is after[n] for n in before)


def test_language_that_modulates_the_towers_is_no_hindrance(make_tiny_checkpoint: Any) -> None:
    one_block = OneBlock(make_tiny_checkpoint(config={'film': True}))
    batches = [inputs(2, 3, 0)]
    names = quantized_linears(one_block.whole)
    wanted = action_importance(one_block.whole, names, batches, OPTIONS, 5)
    found = streamed_action_importance(
        one_block.network, one_block.materialise, batches, OPTIONS, 5
    )
    for name in names:
        torch.testing.assert_close(
            found.weights[name][0], wanted.weights[name][0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize('head', ['diffusion', 'discrete'])
def test_other_heads_are_refused(make_tiny_checkpoint: Any, head: str) -> None:
    one_block = OneBlock(
        make_tiny_checkpoint(config={'head': head}, platform={'action_slots_per_step': 14})
    )
    assert isinstance(one_block.network, OpenVLANetwork)
    with pytest.raises(HbvlaError, match=f'a {head} head: .*use --probe block'):
        streamed_action_importance(
            one_block.network, one_block.materialise, [inputs(1, 3, 0)], OPTIONS, 0
        )
