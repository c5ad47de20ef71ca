# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch

from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.log_scales import read_scale
from hbvla_ros.quantization.column_basis import ColumnBasis
from hbvla_ros.quantization.refinable import RefinableLinear
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.sign_latents import (
    Signed,
    latent_signs,
    weight_of,
    with_latent_signs,
)

KINDS = {
    'one plane': ('signplane', {'planes': 1}),
    'two planes': ('signplane', {'planes': 2}),
    'tiles': ('signplane', {'tile_planes': '21'}),
    'factored': ('dbf', {'width': 24}),
    'no transform': ('rtn', {'planes': 2}),
}


def made(kind: str) -> tuple[Signed, torch.Tensor]:
    rows = 160 if kind == 'tiles' else 40
    weight = torch.randn(rows, 48, generator=torch.Generator().manual_seed(3))
    name, options = KINDS[kind]
    given = dataclasses.replace(METHODS[name].presets['default'], **options)
    layer = METHODS[name].quantize(weight, None, given)
    assert isinstance(layer, SignPlaneLayer | FactoredLayer)
    return layer, weight


def inner_error(layer: Signed, weight: torch.Tensor, latents: dict[str, torch.Tensor]) -> float:
    """Squared error in the domain of the signs, where a margin is measured."""
    scale = layer.column_scale
    basis = ColumnBasis(
        None if scale is None else read_scale(scale, layer.column_scale_span), layer.hadamard
    )
    rebuilt = weight_of(layer, latents)
    return float((basis.inner(rebuilt) - basis.inner(weight)).double().square().sum())


@pytest.mark.parametrize('kind', KINDS)
def test_latent_signs_begin_with_the_weight_of_the_layer(kind: str) -> None:
    layer, weight = made(kind)
    latents = latent_signs(layer, weight)
    for values in latents.values():
        assert 0.05 <= float(values.abs().min()) and float(values.abs().max()) <= 1.0
    assert torch.allclose(weight_of(layer, latents), layer.reconstruct(), atol=1e-6)
    again = with_latent_signs(layer, latents)
    for name, part in layer.tensors().items():
        assert torch.equal(part, again.tensors()[name]), name


@pytest.mark.parametrize('kind', KINDS)
def test_a_margin_says_what_a_flip_costs(kind: str) -> None:
    layer, weight = made(kind)
    latents = latent_signs(layer, weight)
    before = inner_error(layer, weight, latents)
    generator = torch.Generator().manual_seed(1)
    seen = 0
    for name, values in latents.items():
        inside = ((values.abs() > 0.06) & (values.abs() < 0.99)).nonzero()
        for place in inside[torch.randperm(len(inside), generator=generator)[:6]]:
            flipped = values.clone()
            flipped[tuple(place)] *= -1
            changed = {**latents, name: flipped}
            cost = inner_error(layer, weight, changed) - before
            move = weight_of(layer, changed) - weight_of(layer, latents)
            scale = layer.column_scale
            basis = ColumnBasis(
                None if scale is None else read_scale(scale, layer.column_scale_span),
                layer.hadamard,
            )
            alone = float(basis.inner(move).double().square().sum())
            assert cost / alone == pytest.approx(float(values[tuple(place)].abs()), abs=2e-3)
            seen += 1
    assert seen >= 6


@pytest.mark.parametrize('kind', KINDS)
def test_signs_and_scales_have_gradients_and_signs_can_flip(kind: str) -> None:
    layer, weight = made(kind)
    module = RefinableLinear(layer, None, weight)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(256, 48, generator=generator)
    # What the layer would put out with a twentieth of its signs turned round.
    turned = {
        name: values * torch.where(torch.rand(values.shape, generator=generator) < 0.05, -1.0, 1.0)
        for name, values in latent_signs(layer, weight).items()
    }
    wanted = inputs @ weight_of(layer, turned).T
    errors = []
    for step in range(120):
        optimizer.param_groups[0]['lr'] = 0.02 * (1 - step / 120)
        loss = (module(inputs) - wanted).square().mean()
        errors.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        for name, values in module.named_parameters():
            assert values.grad is not None and float(values.grad.abs().sum()) > 0, name
        optimizer.step()
        module.clamp_latents()
        for values in module.latents.values():
            assert float(values.detach().abs().max()) <= 1.0
    # Two factors can undo each other's flips, so that they get there more slowly.
    assert errors[-1] < (0.8 if kind == 'factored' else 0.5) * errors[0]
    before, after = layer.tensors(), module.stored().tensors()
    assert any(not torch.equal(before[name], after[name]) for name in module.latents)
    outputs = module.stored().apply(inputs)
    assert torch.allclose(outputs, module(inputs), rtol=0.1, atol=0.1 * float(outputs.std()))


def test_signs_stay_without_the_weight_and_in_the_grouped_form() -> None:
    layer, weight = made('one plane')
    assert not RefinableLinear(layer, None).latents
    grouped = METHODS['hbllm'].quantize(weight, None, METHODS['hbllm'].presets['default'])
    module = RefinableLinear(grouped, None, weight)
    assert not module.latents
    assert torch.allclose(module(torch.eye(48)).T, grouped.reconstruct(), atol=1e-5)
