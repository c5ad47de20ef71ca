# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The action gradient against explicit Jacobians and against what noise really does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hbvla_ros.quantization.hessian import HessianAccumulator
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.probe_action import action_importance
from hbvla_ros.quantization.probe_options import ProbeOptions
from hbvla_ros.quantization.targets import quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

BARE = ProbeOptions(power=2, floor=0, clip_quantile=1)
DECODER = 'language_model.model.layers'
TOWER = 'vision_backbone.fused_featurizer.blocks'


def load(folder: Path) -> OpenVLANetwork:
    checkpoint = Checkpoint.open(folder, resolve_platform(folder))
    return checkpoint.load_network(inference_only=True).requires_grad_(False)


def inputs(samples: int, words: int, seed: int, noise: bool = False) -> NetworkInputs:
    """Random inputs of the tiny platform: 2 cameras, 14 joints, chunks of 3."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(samples, 3, 14, generator=generator) if noise else None
    return NetworkInputs(
        torch.randn(samples, 12, 32, 32, generator=generator),
        torch.cat([torch.full((samples, 1), 1), torch.full((samples, words), 5)], dim=1),
        torch.rand(samples, 14, generator=generator) * 2 - 1,
        draw,
    )


@pytest.mark.parametrize('name', [f'{DECODER}.0.self_attn.k_proj', f'{TOWER}.1.mlp.fc1'])
def test_weights_are_squared_norms_of_the_action_jacobian(tiny_checkpoint: Path, name: str) -> None:
    network, batch = load(tiny_checkpoint), inputs(1, 3, 0)
    found = action_importance(network, [name], [batch], dataclasses.replace(BARE, probes=300), 1)

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        leaf.append(output.detach().requires_grad_())
        return leaf[0]

    leaf: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_hook(keep)
    actions = network(*batch.arguments()).flatten()
    handle.remove()
    rows = [torch.autograd.grad(one, leaf[0], retain_graph=True)[0] for one in actions]
    exact = torch.stack(rows).square().sum(dim=(0, -1)).flatten()
    torch.testing.assert_close(found.weights[name][0], exact / exact.mean(), rtol=0.5, atol=0.15)
    assert float(torch.corrcoef(torch.stack([found.weights[name][0], exact]))[0, 1]) > 0.95
    channels = leaf[0].shape[-1]
    assert found.sensitivity[name] == pytest.approx(float(exact.mean()) / channels, rel=0.15)


@pytest.mark.parametrize('name', [f'{DECODER}.1.self_attn.v_proj', f'{TOWER}.0.attn.proj'])
def test_sensitivity_tells_what_noise_at_a_layer_costs_the_actions(
    tiny_checkpoint: Path, name: str
) -> None:
    network, batch = load(tiny_checkpoint), inputs(6, 3, 0)
    found = action_importance(network, [name], [batch], dataclasses.replace(BARE, probes=30), 1)
    generator, deviation = torch.Generator().manual_seed(2), 1e-3
    before = network(*batch.arguments())

    def disturb(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output + deviation * torch.randn(output.shape, generator=generator)

    handle = network.get_submodule(name).register_forward_hook(disturb)
    costs = [float((network(*batch.arguments()) - before).square().sum()) / 6 for _ in range(40)]
    handle.remove()
    channels = network.get_submodule(name).out_features
    predicted = deviation**2 * channels * found.tokens[name] * found.sensitivity[name]
    assert sum(costs) / len(costs) == pytest.approx(predicted, rel=0.2)


def test_costs_turn_the_error_under_the_rectified_hessian_into_actions(
    tiny_checkpoint: Path,
) -> None:
    name, deviation = f'{DECODER}.0.mlp.gate_proj', 1e-3
    network, batch = load(tiny_checkpoint), inputs(6, 3, 0)
    found = action_importance(network, [name], [batch], dataclasses.replace(BARE, probes=30), 1)
    linear = network.get_submodule(name)
    hessian = HessianAccumulator(linear.in_features)
    generator = torch.Generator().manual_seed(2)
    before = network(*batch.arguments())

    def disturb(_module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        # What independent errors of the weight would do to each token.
        hessian.add(args[0], found.weights[name][0])
        length = args[0].norm(dim=-1, keepdim=True)
        return output + deviation * length * torch.randn(output.shape, generator=generator)

    handle = linear.register_forward_hook(disturb)
    costs = [float((network(*batch.arguments()) - before).square().sum()) / 6 for _ in range(40)]
    handle.remove()
    error = deviation**2 * linear.out_features * float(hessian.mean().trace())
    assert sum(costs) / len(costs) == pytest.approx(found.costs[name] * error, rel=0.2)


def test_the_first_power_is_the_root_of_the_second_and_the_figures_stay(
    tiny_checkpoint: Path,
) -> None:
    network = load(tiny_checkpoint)
    names = quantized_linears(network)
    batches = [inputs(2, 3, 0), inputs(1, 5, 1)]
    second = action_importance(network, names, batches, BARE, 1)
    first = action_importance(network, names, batches, dataclasses.replace(BARE, power=1), 1)
    assert first.sensitivity == second.sensitivity and set(first.sensitivity) == set(names)
    for name in names:
        for call, batch, squared in zip(
            first.weights[name], batches, second.weights[name], strict=True
        ):
            samples = len(batch.pixel_values)
            roots = squared.reshape(samples, -1).sqrt()
            wanted = roots / roots.mean(dim=1, keepdim=True)
            torch.testing.assert_close(call.reshape(samples, -1), wanted, rtol=1e-4, atol=1e-6)


def test_sensitivity_covers_layers_that_keep_the_plain_hessian(tiny_checkpoint: Path) -> None:
    network = load(tiny_checkpoint)
    names = quantized_linears(network)
    options = dataclasses.replace(BARE, layers='attention', vision=False)
    found = action_importance(network, names, [inputs(2, 3, 0)], options, 1)
    assert set(found.sensitivity) == set(names)
    assert set(found.weights) == {n for n in names if n.startswith(DECODER) and '.self_attn.' in n}


def test_types_of_each_batch_balance_the_decoder_and_leave_the_towers(
    tiny_checkpoint: Path,
) -> None:
    network = load(tiny_checkpoint)
    tower, decoder = f'{TOWER}.0.attn.qkv', f'{DECODER}.0.self_attn.v_proj'
    batches = [inputs(2, 3, 0), inputs(2, 5, 1)]
    # BOS, 2 x 4 patches, proprio token, words, 6 slots, stop token
    types = [torch.tensor([4] + [0] * 8 + [2] + [1] * n + [3] * 6 + [4]) for n in (3, 5)]
    options = dataclasses.replace(BARE, balance_types=True)
    found = action_importance(network, [tower, decoder], batches, options, 1, types=types)
    plain = action_importance(network, [tower, decoder], batches, BARE, 1)
    for one, other in zip(found.weights[tower], plain.weights[tower], strict=True):
        torch.testing.assert_close(one, other)
    for call, kinds in zip(found.weights[decoder], types, strict=True):
        for row in call.reshape(2, -1):
            totals = [float(row[kinds == k].sum()) for k in range(5)]
            assert totals == pytest.approx([len(kinds) / 5] * 5, rel=1e-4)


def test_the_gradient_goes_through_all_denoising_steps(make_tiny_checkpoint: Any) -> None:
    folder = make_tiny_checkpoint(
        config={'head': 'diffusion'},
        platform={'action_slots_per_step': 14, 'diffusion_steps_inference': 2},
    )
    network = load(folder)
    name = f'{DECODER}.0.mlp.up_proj'
    found = action_importance(network, [name], [inputs(2, 3, 0, noise=True)], BARE, 1)
    assert len(found.weights[name]) == 2  # one call a step
    for call in found.weights[name]:
        torch.testing.assert_close(call.reshape(2, -1).mean(dim=1), torch.ones(2))
    assert found.sensitivity[name] > 0
