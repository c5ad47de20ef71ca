# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.config import LanguageConfig, NetworkConfig, TowerConfig
from hbvla_ros.vla.language_model import rotary_table, rotate
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import ALOHA

CONFIG = NetworkConfig(
    featurizer=TowerConfig(16, 3, 2, 32, 16, (32, 32), 4, True, True, False),
    fused_featurizer=TowerConfig(24, 3, 4, 40, 16, (32, 32), 0, False, False, True),
    language=LanguageConfig(32, 48, 2, 4, 2, 128),
    empty_token_id=3,
    action_vocabulary=64,
)
PLATFORM = dataclasses.replace(ALOHA, cameras=('a', 'b'), chunk=3, action_slots_per_step=2)


def build(inference_only: bool = False, platform=PLATFORM, **changes) -> OpenVLANetwork:
    torch.manual_seed(0)
    return OpenVLANetwork(dataclasses.replace(CONFIG, **changes), platform, inference_only)


def inputs(batch: int = 3):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(batch, 12, 32, 32, generator=generator)
    identifiers = torch.randint(4, 128, (batch, 6), generator=generator)
    identifiers[:, 0], identifiers[:, -1] = 1, 3
    return pixels, identifiers, torch.rand(batch, 14, generator=generator)


@pytest.mark.parametrize('film', [False, True])
def test_batch_equals_one_by_one(film):
    network = build(film=film)
    pixels, identifiers, proprio = inputs()
    with torch.no_grad():
        together = network(pixels, identifiers, proprio)
        assert together.shape == (3, 3, 14)
        for row in range(3):
            part = slice(row, row + 1)
            alone = network(pixels[part], identifiers[part], proprio[part])
            torch.testing.assert_close(alone, together[part], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('gradients', [False, True])
def test_padded_prompts_equal_those_without(gradients):
    """Rows of several prompt lengths in one pass: nobody sees the padding, none has a place."""
    network = build()
    pixels, identifiers, proprio = inputs()
    padded = torch.tensor([0, 2, 3])
    with torch.set_grad_enabled(gradients):
        states = network.encode(pixels, identifiers, proprio, padded=padded).action_hidden_states
        for row, count in enumerate(padded):
            ids = torch.cat([identifiers[row, :1], identifiers[row, 1 + count :]])[None]
            part = slice(row, row + 1)
            alone = network.encode(pixels[part], ids, proprio[part]).action_hidden_states
            torch.testing.assert_close(alone, states[part], atol=1e-5, rtol=1e-5)
    with pytest.raises(HbvlaError, match='FiLM'):
        build(film=True).encode(pixels, identifiers, proprio, padded=padded)


def test_what_is_left_out_changes_nothing():
    complete, lean = build(), build(inference_only=True)
    lean.load_state_dict(
        {name: value for name, value in complete.state_dict().items() if name in lean.state_dict()}
    )
    with torch.no_grad():
        torch.testing.assert_close(complete(*inputs()), lean(*inputs()), atol=0, rtol=0)
    assert not hasattr(lean.language_model, 'lm_head')


@pytest.mark.parametrize('film', [False, True])
def test_every_needed_parameter_is_trained_under_autocast(film):
    network = build(inference_only=True, film=film)
    with torch.autocast('cpu', torch.bfloat16):
        encoded = network.encode(*inputs())
        actions = network.decode(encoded.action_hidden_states)
    assert encoded.last_hidden_state.shape == (3, 1 + 8 + 1 + 5 + 6 + 1, 32)
    assert encoded.action_hidden_states.shape == (3, 6, 32)
    assert encoded.features.shape == (3, 8, 40)
    actions.float().abs().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_attention_is_bidirectional():
    """The first token's state depends on the last prompt token."""
    network = build()
    pixels, identifiers, proprio = inputs(1)
    other = identifiers.clone()
    other[0, 4] += 1 if other[0, 4] < 127 else -1
    with torch.no_grad():
        first = network.encode(pixels, identifiers, proprio).last_hidden_state[0, 0]
        second = network.encode(pixels, other, proprio).last_hidden_state[0, 0]
    assert (first - second).abs().max() > 1e-6


def test_head_reads_from_the_empty_token_on():
    """Slot a reads one position before its own: the slice ends before the last slot."""
    network = build()
    with torch.no_grad():
        encoded = network.encode(*inputs(1))
    # BOS, 8 patches, proprio, then the prompt: its last of 5 tokens is at 1 + 8 + 1 + 4.
    torch.testing.assert_close(
        encoded.action_hidden_states, encoded.last_hidden_state[:, 14:20], atol=0, rtol=0
    )


def test_grouped_heads_equal_full_heads_with_repeated_weights():
    narrow = build()
    wide = build(language=dataclasses.replace(CONFIG.language, num_key_value_heads=4))
    state = narrow.state_dict()
    for name in list(state):
        if name.endswith(('k_proj.weight', 'v_proj.weight')):
            heads = state[name].reshape(2, 8, 32)
            state[name] = heads.repeat_interleave(2, dim=0).reshape(32, 32)
    wide.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(narrow(*inputs()), wide(*inputs()), atol=1e-6, rtol=1e-5)


def test_rotary_positions_by_hand():
    table = rotary_table(torch.arange(3), 4, 10000.0)
    # Position 2: angles 2 and 2 / 100 on the pairs (0, 2) and (1, 3).
    turned = rotate(torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 3, 4), table)[0, 0, 2]
    angle = torch.tensor([2.0, 0.02])
    torch.testing.assert_close(turned, torch.cat([angle.cos(), angle.sin()]))


def test_film_mean_counts_bos_and_stop():
    network = build(film=True)
    seen = []
    network.vision_backbone.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    pixels, identifiers, proprio = inputs(1)
    with torch.no_grad():
        network(pixels, identifiers, proprio)
        embed = network.language_model.model.embed_tokens
        wanted = embed(torch.cat([identifiers, torch.tensor([[2]])], dim=1)).mean(dim=1)
    torch.testing.assert_close(seen[0], wanted)


def test_linear_layers_are_called_as_modules():
    """A replaced linear layer must be what runs: packed layers are put in this way."""
    network = build(inference_only=True)
    kinds = [
        name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    for name in kinds:
        called = []
        module = network.get_submodule(name)
        handle = module.register_forward_hook(lambda *_, called=called: called.append(1))
        with torch.no_grad():
            network(*inputs(1))
        handle.remove()
        assert called, name


def test_compiles_without_graph_breaks():
    network = build(inference_only=True)
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(network.encode, backend=backend, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(*inputs()).last_hidden_state, network.encode(*inputs()).last_hidden_state
        )
    assert len(graphs) == 1


def test_missing_proprioception():
    pixels, identifiers, _ = inputs()
    with pytest.raises(HbvlaError, match="platform 'aloha' needs proprioception"):
        build()(pixels, identifiers)


@pytest.mark.parametrize('head', ['diffusion', 'discrete'])
def test_only_the_regression_head_may_share_slots(head):
    with pytest.raises(HbvlaError, match='needs action_slots_per_step 14, got 2'):
        build(head=head)


def test_discrete_network_needs_no_action_head():
    platform = dataclasses.replace(PLATFORM, action_slots_per_step=None)
    network = build(inference_only=True, platform=platform, head='discrete')
    with torch.no_grad():
        actions = network(*inputs())
    assert actions.shape == (3, 3, 14)
    centres = (actions + 1) * 127.5 - 0.5
    torch.testing.assert_close(centres, centres.round(), atol=1e-3, rtol=0)


def test_diffusion_draws_noise_of_its_own_and_takes_batches():
    platform = dataclasses.replace(
        PLATFORM, action_slots_per_step=None, diffusion_steps_inference=5
    )
    network = build(platform=platform, head='diffusion')
    pixels, identifiers, proprio = inputs()
    noise = torch.randn(3, 3, 14)
    with torch.no_grad():
        together = network(pixels, identifiers, proprio, noise)
        alone = network(pixels[1:2], identifiers[1:2], proprio[1:2], noise[1:2])
        torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=1e-5)
        assert not torch.equal(network(pixels, identifiers, proprio), together)
    assert together.abs().max() <= 1
