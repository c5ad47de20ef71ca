# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The streamed network against the whole one in memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.install import replace_linear
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization import activations
from hbvla_ros.quantization.activations import ActivationCache
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.capture import BlockInputs
from hbvla_ros.quantization.forward_pass import ForwardPass
from hbvla_ros.quantization.hessian import HessianAccumulator
from hbvla_ros.quantization.methods import rtn
from hbvla_ros.quantization.stream import StreamedNetwork
from hbvla_ros.quantization.targets import COMPONENTS, block_chains, resident_linears
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform

KINDS: dict[str, dict[str, Any]] = {
    'l1': {},
    'film': {'config': {'film': True}},
    'discrete': {'config': {'head': 'discrete'}, 'platform': {'action_slots_per_step': None}},
    'diffusion': {
        'config': {'head': 'diffusion'},
        'platform': {'action_slots_per_step': None, 'diffusion_steps_inference': 3},
    },
}


@pytest.fixture(params=KINDS)
def checkpoint(request: pytest.FixtureRequest, make_tiny_checkpoint: Any) -> Checkpoint:
    folder = make_tiny_checkpoint(**KINDS[request.param])
    return Checkpoint.open(folder, resolve_platform(folder))


@pytest.fixture
def data(checkpoint: Checkpoint, episodes_folder: Path) -> CalibrationSet:
    return read_calibration(episodes_folder, checkpoint, 12, 0)


class Visitor:
    """Takes the Hessians of every block, then quantizes it."""

    def __init__(self, stream: StreamedNetwork, linears: dict[str, list[str]]) -> None:
        self.stream, self.linears = stream, linears
        self.hessians: dict[str, Tensor] = {}
        self.tokens: dict[str, int] = {}

    def __call__(self, block: str, inputs: BlockInputs) -> None:
        names = self.linears[block]
        for name, total in inputs.hessians(self.stream.network, block, names).items():
            self.hessians[name], self.tokens[name] = total.mean(), total.tokens
        for name in names:
            layer = rtn.quantize(self.stream.weight(name), None, rtn.RtnOptions())
            self.stream.install(name, lambda layer=layer: layer)


def quantized_in_memory(checkpoint: Checkpoint, data: CalibrationSet) -> Visitor:
    """The same with the whole network: what every layer is called with, found by a full run."""
    network = checkpoint.load_network().requires_grad_(False)
    found = Visitor.__new__(Visitor)
    found.hessians, found.tokens = {}, {}
    outside = resident_linears(network, COMPONENTS)
    towers, decoder = block_chains(network, COMPONENTS)[:2], block_chains(network, COMPONENTS)[2]
    order = [block for chain in towers for block in chain]
    order += [(name, outside[name]) for name in ('projector', 'proprio_projector')]
    order += decoder
    order += [(name, outside[name]) for name in ('action_head',) if name in outside]
    # Samples come from the decoder before it is quantized; frozen here, whatever comes later.
    frozen: list[Tensor] = []
    for block, names in order:
        if block == decoder[0][0] and network.schedule is not None:
            frozen = record_samples(network, data)
        totals = run_with_hooks(network, data, names, frozen)
        for name in names:
            found.hessians[name] = totals[name].mean()
            found.tokens[name] = totals[name].tokens
            weight = network.get_parameter(f'{name}.weight').detach()
            layer: QuantizedLayer = rtn.quantize(weight, None, rtn.RtnOptions())
            replace_linear(network, name, layer, 'bf16', torch.float32)
    return found


def record_samples(network: Any, data: CalibrationSet) -> list[Tensor]:
    """What is denoised at every step, batch by batch."""
    samples: list[Tensor] = []
    original = network.embeddings

    def note(context: Any, noisy: Any = None, timestep: Any = None) -> Tensor:
        samples.append(noisy)
        return original(context, noisy, timestep)

    network.embeddings = note
    with torch.no_grad():
        for batch in data.batches:
            network(*batch.arguments())
    network.embeddings = original
    return samples


def run_with_hooks(
    network: Any, data: CalibrationSet, names: list[str], frozen: list[Tensor]
) -> dict[str, HessianAccumulator]:
    """Run all batches, on frozen samples if there are any."""
    totals = {n: HessianAccumulator(network.get_submodule(n).in_features) for n in names}
    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, name=name: totals[name].add(args[0])
        )
        for name in names
    ]
    original, queue = network.embeddings, list(frozen)

    def replay(context: Any, noisy: Any = None, timestep: Any = None) -> Tensor:
        return original(context, queue.pop(0) if queue else noisy, timestep)

    network.embeddings = replay
    with torch.no_grad():
        for batch in data.batches:
            network(*batch.arguments())
    network.embeddings = original
    for handle in handles:
        handle.remove()
    return totals


@pytest.mark.parametrize('on_disk', [False, True])
def test_actions_are_those_of_the_whole_network(
    on_disk: bool, checkpoint: Checkpoint, data: CalibrationSet, tmp_path: Path
) -> None:
    whole = checkpoint.load_network()
    folder = tmp_path / 'cache'
    folder.mkdir()
    stream = StreamedNetwork(checkpoint)
    cache = ActivationCache(folder if on_disk else None)
    found = ForwardPass(stream, data.batches, cache).actions()
    with torch.no_grad():
        for batch, actions in zip(data.batches, found, strict=True):
            torch.testing.assert_close(actions, whole(*batch.arguments()), rtol=1e-5, atol=1e-6)
    assert not list(folder.iterdir())


def test_hessians_are_those_of_the_whole_network(
    checkpoint: Checkpoint, data: CalibrationSet, tmp_path: Path
) -> None:
    stream = StreamedNetwork(checkpoint)
    outside = resident_linears(stream.network, COMPONENTS)
    chains = block_chains(stream.network, COMPONENTS)
    visitor = Visitor(stream, {b: names for chain in chains for b, names in chain} | outside)
    ForwardPass(stream, data.batches, ActivationCache(tmp_path)).visit(visitor, list(outside))
    expected = quantized_in_memory(checkpoint, data)
    assert visitor.tokens == expected.tokens
    assert len(visitor.tokens) == 30 + sum(map(len, outside.values()))
    for name, hessian in expected.hessians.items():
        torch.testing.assert_close(
            visitor.hessians[name], hessian, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f'{n}: {m}'
        )


@pytest.mark.parametrize('checkpoint', ['film'], indirect=True)
def test_only_one_block_is_in_memory_at_a_time(
    checkpoint: Checkpoint, data: CalibrationSet
) -> None:
    stream = StreamedNetwork(checkpoint)
    blocks = [block for chain in stream.chains for block, _ in chain]
    seen = []

    def visit(present: str, _inputs: BlockInputs) -> None:
        seen.append(present)
        for block in blocks:
            parameters = list(stream.network.get_submodule(block).parameters())
            assert parameters and all(p.is_meta == (block != present) for p in parameters)

    ForwardPass(stream, data.batches, ActivationCache()).visit(visit, [])
    assert seen == blocks
    outside = [n for n, p in stream.network.named_parameters() if not p.is_meta]
    assert outside and not any(n.startswith(tuple(f'{b}.' for b in blocks)) for n in outside)
    assert all(p.is_meta for b in blocks for p in stream.network.get_submodule(b).parameters())


@pytest.mark.parametrize('checkpoint', ['l1'], indirect=True)
def test_layers_with_the_same_inputs_share_a_sum(
    checkpoint: Checkpoint, data: CalibrationSet, record_inputs: Any
) -> None:
    network = checkpoint.load_network()
    block, names = block_chains(network)[2][0]
    inputs = record_inputs(network, block, data.batches)
    totals = inputs.hessians(network, block, names)
    assert len({id(total) for total in totals.values()}) == 4
    query, key, value = (totals[f'{block}.self_attn.{p}_proj'] for p in 'qkv')
    assert query is key is value
    ones = {
        f'{block}.self_attn.k_proj': [
            torch.ones(call[0][0].shape[:2].numel()) for call in iter(inputs)
        ]
    }
    weighted = inputs.hessians(network, block, names, ones)
    key = weighted[f'{block}.self_attn.k_proj']
    assert key is not weighted[f'{block}.self_attn.q_proj']
    assert weighted[f'{block}.self_attn.v_proj'] is weighted[f'{block}.self_attn.q_proj']
    torch.testing.assert_close(key.mean(), query.mean())
    assert key.tokens == query.tokens


@pytest.mark.parametrize('checkpoint', ['l1'], indirect=True)
def test_bfloat16_passes_come_close(checkpoint: Checkpoint, data: CalibrationSet) -> None:
    exact = ForwardPass(StreamedNetwork(checkpoint), data.batches, ActivationCache()).actions()
    stream = StreamedNetwork(checkpoint, dtype=torch.bfloat16)
    seen = []
    ForwardPass(stream, data.batches, ActivationCache()).visit(
        lambda block, inputs: seen.extend(h.dtype for h in inputs.hidden()), []
    )
    assert set(seen) == {torch.bfloat16}
    found = torch.cat(ForwardPass(stream, data.batches, ActivationCache()).actions())
    assert found.dtype == torch.float32
    difference = float((found - torch.cat(exact)).norm() / torch.cat(exact).norm())
    assert 0 < difference < 0.05


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    kept = ActivationCache(tmp_path).put(torch.arange(6.0).reshape(2, 3))
    assert kept.tolist() == [[0, 1, 2], [3, 4, 5]]
    copied = copy.deepcopy(kept)
    assert ActivationCache(tmp_path).replace(kept, kept + 1).data_ptr() == kept.data_ptr()
    torch.testing.assert_close(kept, copied + 1)
    monkeypatch.setattr(activations.os, 'posix_fallocate', refuse)
    with pytest.raises(HbvlaError, match='no room for the cached activations .No space left'):
        ActivationCache(tmp_path).put(torch.ones(3))
    assert not list(tmp_path.iterdir())
