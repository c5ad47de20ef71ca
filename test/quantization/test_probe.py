# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From gradients to token weights: what the normalisation, clip, balance and floor promise."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.probe import token_weights
from hbvla_ros.quantization.probe_options import PROBE_PRESETS, ProbeOptions, probed_layers

BARE = ProbeOptions(power=2, floor=0.0, clip_quantile=1.0)


def random_calls(seed: int, shapes: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Squared norms with a heavy tail, of samples of very different size."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (3 * torch.randn(shape, generator=generator)).exp()
        * (3 * torch.randn(shape[0], 1, generator=generator)).exp()
        for shape in shapes
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2]))
def test_each_sample_has_mean_one_and_keeps_its_ratios(seed: int, power: int) -> None:
    calls = random_calls(seed, ((3, 20), (2, 31)))
    found = token_weights('x', calls, dataclasses.replace(BARE, power=power))
    for call, weights in zip(calls, found, strict=True):
        rows = weights.reshape(call.shape)
        torch.testing.assert_close(rows.mean(dim=1), torch.ones(len(rows)))
        ratios = (call / call[:, :1]) ** (power / 2)
        torch.testing.assert_close(rows / rows[:, :1], ratios, rtol=1e-4, atol=0)


def test_without_the_normalisation_samples_keep_their_sizes() -> None:
    calls = [torch.tensor([[1.0, 1.0], [5.0, 5.0]]), torch.tensor([[3.0, 3.0]])]
    options = dataclasses.replace(BARE, per_sample_normalisation=False)
    first, second = token_weights('x', calls, options)
    torch.testing.assert_close(first, torch.tensor([1.0, 1.0, 5.0, 5.0]) / 3)
    torch.testing.assert_close(second, torch.ones(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 0.99), st.floats(0, 1))
def test_the_clip_bounds_the_largest_and_the_floor_the_smallest(
    seed: int, quantile: float, floor: float
) -> None:
    calls = random_calls(seed, ((4, 50), (1, 50)))
    bare = torch.cat(token_weights('x', calls, BARE))
    options = dataclasses.replace(BARE, clip_quantile=quantile, floor=floor)
    found = torch.cat(token_weights('x', calls, options))
    bound = bare.sort().values[round(quantile * len(bare)) - 1]
    torch.testing.assert_close(found, (1 - floor) * bare.clamp(max=bound) + floor)
    assert float(found.min()) >= floor - 1e-6


def test_tokens_without_influence_get_the_floor_and_rare_ones_survive_the_clip() -> None:
    call = torch.zeros(1, 5000)
    call[0, 7] = 2.0
    (found,) = token_weights('x', [call], dataclasses.replace(BARE, floor=0.05, clip_quantile=0.99))
    assert float(found[7]) == pytest.approx(0.95 * 5000 + 0.05)
    assert sorted(found.tolist())[:-1] == pytest.approx([0.05] * 4999)


def test_where_nothing_matters_all_weigh_the_same() -> None:
    for per_sample in (True, False):
        options = dataclasses.replace(ProbeOptions(), per_sample_normalisation=per_sample)
        (found,) = token_weights('x', [torch.zeros(2, 3)], options)
        torch.testing.assert_close(found, torch.ones(6))


def test_balanced_types_have_equal_totals() -> None:
    types = torch.tensor([0] * 12 + [1] * 3 + [2] + [3] * 4)
    calls = random_calls(3, ((2, 20), (1, 20)))
    calls[1][0, 15] = 0.0  # the only proprio token of the last sample does not matter
    options = dataclasses.replace(BARE, balance_types=True)
    found = token_weights('x', calls, options, [types, types])
    for row in found[0].reshape(2, 20):
        for kind in range(4):
            assert float(row[types == kind].sum()) == pytest.approx(5.0, rel=1e-5)
    totals = [float(found[1][types == kind].sum()) for kind in range(4)]
    assert totals == pytest.approx([20 / 3, 20 / 3, 0.0, 20 / 3], rel=1e-5)
    (tower,) = token_weights('x', calls[:1], options, [None])
    torch.testing.assert_close(tower, token_weights('x', calls[:1], BARE)[0])


def test_gradients_that_overflow_are_an_error_with_the_layer() -> None:
    with pytest.raises(HbvlaError, match=r'layer\.q: its gradients are not finite'):
        token_weights('layer.q', [torch.tensor([[1.0, float('inf')]])], ProbeOptions())


def test_layers_that_get_a_rectified_hessian() -> None:
    tower = [f'vision_backbone.featurizer.blocks.0.{n}' for n in ('attn.qkv', 'mlp.fc1')]
    decoder = [f'language_model.model.layers.0.{n}' for n in ('self_attn.q_proj', 'mlp.down_proj')]
    both = tower + decoder
    assert probed_layers(both, ProbeOptions(layers='all', vision=True)) == both
    assert probed_layers(both, ProbeOptions(layers='all', vision=False)) == decoder
    assert probed_layers(both, ProbeOptions(layers='attention')) == [tower[0], decoder[0]]
    assert probed_layers(both, PROBE_PRESETS['parity']) == decoder[:1]
    assert probed_layers(both, PROBE_PRESETS['none']) == []


def test_options_are_plain_values_within_their_ranges() -> None:
    for options in PROBE_PRESETS.values():
        plain = json.loads(json.dumps(dataclasses.asdict(options)))
        assert ProbeOptions(**plain) == options
    for wrong in ({'floor': 1.5}, {'clip_quantile': 0.0}, {'probes': 0}, {'power': 3}):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))} .*: use'):
            ProbeOptions(**wrong)  # type: ignore[arg-type]
