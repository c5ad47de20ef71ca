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
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.activations import ActivationCache
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.probe_action import action_importance
from hbvla_ros.quantization.probe_options import ProbeOptions
from hbvla_ros.quantization.probe_stream import streamed_action_importance
from hbvla_ros.quantization.stream import StreamedNetwork
from hbvla_ros.quantization.targets import quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform

OPTIONS = ProbeOptions(probes=3)


def open_checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint.open(folder, resolve_platform(folder))


def inputs(samples: int, words: int, seed: int) -> NetworkInputs:
    """Random inputs of the tiny platform: 2 cameras, 14 joints, chunks of 3."""
    generator = torch.Generator().manual_seed(seed)
    return NetworkInputs(
        torch.randn(samples, 12, 32, 32, generator=generator),
        torch.cat([torch.full((samples, 1), 1), torch.full((samples, words), 5)], dim=1),
        torch.rand(samples, 14, generator=generator) * 2 - 1,
        None,
    )


class CountingStream(StreamedNetwork):
    """Notes the largest number of blocks that had tensors at the same time."""

    now = most = 0

    @contextmanager
    def block(self, name: str) -> Iterator[nn.Module]:
        self.now += 1
        self.most = max(self.most, self.now)
        with super().block(name) as module:
            yield module
        self.now -= 1


@pytest.mark.parametrize('per_sample', [True, False])
@pytest.mark.parametrize('on_disk', [True, False])
def test_same_weights_and_sensitivities_as_the_whole_network(
    tiny_checkpoint: Path, tmp_path: Path, per_sample: bool, on_disk: bool
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    whole = checkpoint.load_network().requires_grad_(False)
    batches = [inputs(3, 3, 0), inputs(2, 5, 1)]
    types = [torch.tensor([4] + [0] * 8 + [2] + [1] * n + [3] * 6 + [4]) for n in (3, 5)]
    options = dataclasses.replace(
        OPTIONS, balance_types=per_sample, per_sample_normalisation=per_sample
    )
    outside = [
        name
        for name, module in whole.named_modules()
        if isinstance(module, nn.Linear) and 'projector' in name or name == 'action_head.model.fc1'
    ]
    names = quantized_linears(whole) + outside
    wanted = action_importance(whole, names, batches, options, 5, types=types)
    stream, steps = CountingStream(checkpoint), []
    cache = ActivationCache(tmp_path if on_disk else None)
    found = streamed_action_importance(
        stream, batches, options, 5, cache, lambda: steps.append(None), types, outside
    )
    assert len(outside) == 6
    assert set(found.weights) == set(wanted.weights) == set(names)
    for name in names:
        for one, other in zip(found.weights[name], wanted.weights[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert found.sensitivity[name] == pytest.approx(wanted.sensitivity[name], rel=1e-4)
    assert found.tokens == wanted.tokens
    assert len(steps) == 2 * sum(len(chain) for chain in stream.chains)
    assert stream.most == 1 and stream.now == 0


def test_language_that_modulates_the_towers_is_no_hindrance(make_tiny_checkpoint: Any) -> None:
    checkpoint = open_checkpoint(make_tiny_checkpoint(config={'film': True}))
    whole, batches = checkpoint.load_network().requires_grad_(False), [inputs(2, 3, 0)]
    names = quantized_linears(whole)
    wanted = action_importance(whole, names, batches, OPTIONS, 5)
    found = streamed_action_importance(StreamedNetwork(checkpoint), batches, OPTIONS, 5)
    for name in names:
        torch.testing.assert_close(
            found.weights[name][0], wanted.weights[name][0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize('head', ['diffusion', 'discrete'])
def test_other_heads_are_refused(make_tiny_checkpoint: Any, head: str) -> None:
    checkpoint = open_checkpoint(
        make_tiny_checkpoint(config={'head': head}, platform={'action_slots_per_step': 14})
    )
    with pytest.raises(HbvlaError, match=f'a {head} head needs .*use --probe block'):
        streamed_action_importance(StreamedNetwork(checkpoint), [inputs(1, 3, 0)], OPTIONS, 0)
