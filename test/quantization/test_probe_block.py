# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The block-wise probe against closed forms and finite differences, on real blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.probe_block import block_token_weights, sign_weight
from hbvla_ros.quantization.probe_options import PROBE_PRESETS, ProbeOptions
from hbvla_ros.vla.config import LanguageConfig, TowerConfig
from hbvla_ros.vla.language_model import DecoderLayer, rotary_table
from hbvla_ros.vla.towers import Block

LAYER = 'language_model.model.layers.0'
TOWER = 'vision_backbone.featurizer.blocks.0'
BARE = ProbeOptions(
    'block', power=1, per_sample_normalisation=False, floor=0, clip_quantile=1, block_scope='layer'
)
TOKENS = 9

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def decoder() -> tuple[nn.Module, Calls, list[str]]:
    """A decoder layer with shared key-value heads in double precision, its calls and names."""
    torch.manual_seed(0)
    layer = DecoderLayer(LanguageConfig(32, 48, 1, 4, 2, 64)).double().requires_grad_(False)
    table = rotary_table(torch.arange(TOKENS), 8, 10000.0).double()
    calls: Calls = [
        ((torch.randn(count, TOKENS, 32, dtype=torch.float64), table), {}) for count in (2, 1)
    ]
    return layer, calls, linear_names(layer, LAYER)


@pytest.fixture
def tower() -> tuple[nn.Module, Calls, list[str]]:
    """The same for a tower block with FiLM."""
    torch.manual_seed(1)
    config = TowerConfig(24, 3, 4, 40, 16, (32, 32), 4, True, True, False)
    block = Block(config, 16).double().requires_grad_(False)
    hidden, words = torch.randn(2, 7, 24).double(), torch.randn(2, 16).double()
    names = [n for n in linear_names(block, TOWER) if '.attn.' in n or '.mlp.' in n]
    return block, [((hidden,), {'language': words})], names


def linear_names(block: nn.Module, prefix: str) -> list[str]:
    return [f'{prefix}.{n}' for n, m in block.named_modules() if isinstance(m, nn.Linear)]


def binarized(block: nn.Module, names: list[str], prefix: str) -> dict[str, Tensor]:
    return {n: sign_weight(block.get_parameter(n[len(prefix) + 1 :] + '.weight')) for n in names}


def difference(
    block: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], part: str, constant: Tensor
) -> float:
    args, kwargs = call
    out = block(*args, **kwargs) if part == 'layer' else block.attention_part(*args, **kwargs)  # type: ignore[operator]
    return float((out - constant).square().sum())


def numeric_norms(block: nn.Module, local: str, loss: Any, shape: tuple[int, ...]) -> Tensor:
    """Gradient norm of each token (samples, tokens) by central differences at a layer's output."""
    # The norm in the middle of a layer works in single precision, which bounds the step.
    step, gradient = 1e-3, torch.zeros(shape, dtype=torch.float64)
    for index in range(gradient.numel()):
        values = []
        for sign in (1, -1):

            def shift(_m: nn.Module, _a: Any, output: Tensor, sign: int = sign) -> Tensor:
                output = output.clone()
                output.view(-1)[index] += sign * step  # noqa: B023
                return output

            handle = block.get_submodule(local).register_forward_hook(shift)
            values.append(loss())
            handle.remove()
        gradient.view(-1)[index] = (values[0] - values[1]) / (2 * step)
    return gradient.norm(dim=-1).reshape(shape[0], -1)


@pytest.mark.parametrize('scope', ['attention', 'layer'])
@pytest.mark.parametrize('branch', ['full', 'quantized'])
@pytest.mark.parametrize('local', ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'])
def test_gradients_match_finite_differences(
    decoder: tuple[nn.Module, Calls, list[str]], scope: str, branch: str, local: str
) -> None:
    block, calls, names = decoder
    calls = calls[1:]
    attention = [n for n in names if '.self_attn.' in n]
    swap = binarized(block, attention, LAYER)
    options = dataclasses.replace(BARE, block_scope=scope, gradient_branch=branch)  # type: ignore[arg-type]
    found = block_token_weights(block, calls, names, swap, options)[f'{LAYER}.{local}'][0]

    other = DecoderLayer(LanguageConfig(32, 48, 1, 4, 2, 64)).double().requires_grad_(False)
    other.load_state_dict(block.state_dict())
    for name, weight in swap.items():
        other.get_submodule(name[len(LAYER) + 1 :]).weight.data = weight
    live, fixed = (block, other) if branch == 'full' else (other, block)
    args, kwargs = calls[0]
    constant = fixed(*args) if scope == 'layer' else fixed.attention_part(*args)  # type: ignore[operator]
    width = block.get_submodule(local).out_features
    norms = numeric_norms(
        live,
        local,
        lambda: difference(live, calls[0], scope, constant),
        (1, TOKENS, width),  # type: ignore[arg-type]
    )
    torch.testing.assert_close(found.double(), (norms / norms.mean()).flatten(), rtol=1e-3, atol=0)


@pytest.mark.parametrize('power', [1, 2])
def test_the_output_projection_sees_twice_the_difference(
    decoder: tuple[nn.Module, Calls, list[str]], power: int
) -> None:
    block, calls, names = decoder
    attention = [n for n in names if '.self_attn.' in n]
    swap = binarized(block, attention, LAYER)
    options = dataclasses.replace(PROBE_PRESETS['parity'], power=power)
    found = block_token_weights(block, calls, names, swap, options)
    assert list(found) == attention
    before = [block.attention_part(*args) for args, _ in calls]  # type: ignore[operator]
    for name, weight in swap.items():
        block.get_submodule(name[len(LAYER) + 1 :]).weight.data = weight
    after = [block.attention_part(*args) for args, _ in calls]  # type: ignore[operator]
    wanted = [
        (2 * (a - b)).norm(dim=-1).pow(power).flatten() for a, b in zip(before, after, strict=True)
    ]
    mean = torch.cat(wanted).mean()
    for weights, norms in zip(found[f'{LAYER}.self_attn.o_proj'], wanted, strict=True):
        torch.testing.assert_close(weights.double(), norms / mean, rtol=1e-4, atol=0)


def test_the_mlp_is_a_block_of_its_own_after_full_precision_attention(
    decoder: tuple[nn.Module, Calls, list[str]],
) -> None:
    block, calls, names = decoder
    swap = binarized(block, names, LAYER)
    options = dataclasses.replace(BARE, block_scope='attention')
    found = block_token_weights(block, calls, names, swap, options)
    assert set(found) == set(names)
    wanted = []
    hidden = [block.attention_part(*args) for args, _ in calls]  # type: ignore[operator]
    before = [block.feed_forward_part(one) for one in hidden]  # type: ignore[operator]
    for name, weight in swap.items():
        block.get_submodule(name[len(LAYER) + 1 :]).weight.data = weight
    for one, out in zip(hidden, before, strict=True):
        wanted.append((out - block.feed_forward_part(one)).norm(dim=-1).flatten())  # type: ignore[operator]
    mean = torch.cat(wanted).mean()
    for weights, norms in zip(found[f'{LAYER}.mlp.down_proj'], wanted, strict=True):
        torch.testing.assert_close(weights.double(), norms / mean, rtol=1e-4, atol=0)


@pytest.mark.parametrize('scope', ['attention', 'layer'])
def test_all_four_layers_of_a_tower_block_in_one_or_two_parts(
    tower: tuple[nn.Module, Calls, list[str]], scope: str
) -> None:
    block, calls, names = tower
    options = dataclasses.replace(BARE, block_scope=scope, per_sample_normalisation=True)  # type: ignore[arg-type]
    swap = binarized(block, names, TOWER)
    by_image = block_token_weights(block, calls, names, swap, options)
    assert list(by_image) == names and len(names) == 4
    by_frame = block_token_weights(block, calls, names, swap, options, frames=[1])
    for name in names:
        (images,), (frame,) = by_image[name], by_frame[name]
        torch.testing.assert_close(images.reshape(2, 7).mean(dim=1), torch.ones(2))
        assert float(frame.mean()) == pytest.approx(1.0, rel=1e-5)
        assert not torch.allclose(frame.reshape(2, 7).mean(dim=1), torch.ones(2), atol=1e-3)
    assert not block_token_weights(
        block, calls, names, swap, dataclasses.replace(options, vision=False)
    )


def test_a_token_that_changes_nothing_gets_the_floor() -> None:
    class Masked(nn.Module):
        """Lets only the first two tokens through."""

        def __init__(self) -> None:
            super().__init__()
            self.self_attn = nn.ModuleDict({'o_proj': nn.Linear(8, 8)})

        def forward(self, hidden: Tensor) -> Tensor:
            mask = torch.tensor([1.0, 1, 0, 0]).reshape(1, 4, 1)
            return mask * self.self_attn['o_proj'](hidden)

    torch.manual_seed(0)
    block = Masked()
    name = f'{LAYER}.self_attn.o_proj'
    options = dataclasses.replace(BARE, floor=0.05)
    calls: Calls = [((torch.randn(3, 4, 8),), {})]
    swap = {name: sign_weight(block.self_attn['o_proj'].weight)}
    (found,) = block_token_weights(block, calls, [name], swap, options)[name]
    rows = found.reshape(3, 4)
    assert rows[:, 2:].tolist() == [[pytest.approx(0.05)] * 2] * 3
    assert float(rows[:, :2].min()) > 0.1


def test_the_weights_come_back_whatever_happens(
    decoder: tuple[nn.Module, Calls, list[str]],
) -> None:
    block, calls, names = decoder
    before = dict(block.named_parameters())
    swap = binarized(block, names, LAYER)
    block_token_weights(block, calls, names, swap, BARE)
    broken: Calls = [((calls[0][0][0][..., :-1], calls[0][0][1]), {})]
    with pytest.raises(RuntimeError):
        block_token_weights(block, broken, names, swap, BARE)
    after = dict(block.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert not any(module._forward_hooks for module in block.modules())


def test_layers_that_do_not_fit_are_named(
    decoder: tuple[nn.Module, Calls, list[str]],
) -> None:
    block, calls, names = decoder
    name = f'{LAYER}.self_attn.q_proj'
    with pytest.raises(HbvlaError, match=rf'{name}: provisional weight is \(3, 32\)'):
        block_token_weights(block, calls, names, {name: torch.ones(3, 32)}, BARE)
    with pytest.raises(HbvlaError, match='z_proj: the block has no such linear layer'):
        block_token_weights(block, calls, ['self_attn.z_proj'], {}, BARE)


def test_types_balance_the_block_probe(decoder: tuple[nn.Module, Calls, list[str]]) -> None:
    block, calls, names = decoder
    types = torch.tensor([0] * 6 + [1] * 2 + [3])
    options = dataclasses.replace(BARE, balance_types=True)
    found = block_token_weights(
        block, calls, names, binarized(block, names, LAYER), options, [types] * len(calls)
    )
    for call in found[names[0]]:
        for row in call.reshape(-1, TOKENS):
            assert [float(row[types == k].sum()) for k in (0, 1, 3)] == pytest.approx([3] * 3)
