# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Token types against what the network really feeds its layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hbvla_ros.quantization.token_types import (
    ACTION,
    OTHER,
    PROPRIO,
    TEXT,
    VISUAL,
    decoder_patches,
    decoder_token_types,
    tower_patches,
    tower_token_types,
)
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

FULL_SLOTS = {'action_slots_per_step': None, 'diffusion_steps_inference': 2}
CASES = [
    ({}, {}),
    ({'film': True}, {'proprio_dim': 0}),
    ({'head': 'discrete'}, FULL_SLOTS),
    ({'head': 'diffusion'}, FULL_SLOTS),
    ({'head': 'diffusion'}, {**FULL_SLOTS, 'proprio_dim': 0}),
]


@pytest.fixture(params=CASES, ids=['l1', 'film', 'discrete', 'diffusion', 'diffusion_blind'])
def network(request: pytest.FixtureRequest, make_tiny_checkpoint: Any) -> OpenVLANetwork:
    config, platform = request.param
    folder = make_tiny_checkpoint(config=config, platform=platform)
    network = Checkpoint.open(folder, resolve_platform(folder)).load_network()
    return network.requires_grad_(False)


def context_of(network: OpenVLANetwork, pixels: torch.Tensor, ids: torch.Tensor) -> Any:
    width = network.platform.proprio_dim
    return network.context(pixels, ids, torch.ones(len(ids), width) if width else None)


def sequence_of(network: OpenVLANetwork, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The decoder's input."""
    context = context_of(network, pixels, ids)
    if network.config.head != 'diffusion':
        return network.embeddings(context)
    noise = torch.ones(len(ids), network.platform.chunk, network.platform.action_dim)
    return network.embeddings(context, noise, torch.zeros(len(ids)))


def test_every_type_stands_where_the_network_puts_it(network: OpenVLANetwork) -> None:
    ids = torch.tensor([[1, 4, 5, 6, 7, 8, 3]])
    pixels = torch.rand(1, 12, 32, 32)
    types = decoder_token_types(network, ids.shape[1])
    sequence = sequence_of(network, pixels, ids)[0]
    assert types.dtype == torch.int8 and len(types) == len(sequence)
    words = network.language_model.model.embed_tokens
    stop = torch.tensor([network.config.stop_token_id])
    assert torch.equal(sequence[types == TEXT], words(torch.cat([ids[0], stop])))
    context = context_of(network, pixels, ids)
    torch.testing.assert_close(sequence[types == VISUAL], network.projector(context.features)[0])
    if network.platform.proprio_dim:
        state = network.proprio_projector(torch.ones(1, network.platform.proprio_dim))
        torch.testing.assert_close(sequence[types == PROPRIO], state)
    else:
        assert not (types == PROPRIO).any()
    slots = sequence[types == ACTION]
    assert len(slots) == network.platform.action_slots
    if network.config.head == 'diffusion':
        assert torch.equal(slots[0], slots[-1]) and slots.abs().max() > 0
        # The time step 0: sines of 0, then cosines of 0.
        dim = sequence.shape[1]
        assert torch.equal(
            sequence[types == OTHER], torch.tensor([[0.0] * (dim // 2) + [1.0] * (dim // 2)])
        )
    else:
        assert not slots.any() and not (types == OTHER).any()


def test_patches_of_a_camera_follow_its_picture(network: OpenVLANetwork) -> None:
    """A changed patch of an image changes the token at its place in the grid, and no other's more.

    The towers mix patches, so the place is where the change is largest.
    """
    ids = torch.tensor([[1, 4, 5, 6, 3]])
    pixels = torch.rand(1, 12, 32, 32)
    types = decoder_token_types(network, ids.shape[1])
    grids = decoder_patches(network)
    assert list(grids) == list(network.platform.cameras)
    before = sequence_of(network, pixels, ids)[0]
    for number, grid in enumerate(grids.values()):
        assert (grid.rows, grid.columns, grid.stop - grid.start) == (2, 2, 4)
        assert (types[grid.start : grid.stop] == VISUAL).all()
        for place in range(4):
            row, column = divmod(place, grid.columns)
            other = pixels.clone()
            other[
                :, 6 * number : 6 * number + 6,
                16 * row : 16 * row + 16, 16 * column : 16 * column + 16,
            ] += 5.0  # fmt: skip
            moved = (sequence_of(network, other, ids)[0] - before).norm(dim=1)
            assert int(moved.argmax()) == grid.start + place
            outside = torch.cat([moved[: grid.start], moved[grid.stop :]])
            assert outside.max() < 1e-6


def test_towers_see_prefix_and_patches_of_every_image(network: OpenVLANetwork) -> None:
    rows: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(_module: Any, args: Any) -> None:
            rows[name] = args[0].flatten(0, -2).shape[0]

        return hook

    names = [f'vision_backbone.{tower}.blocks.0.mlp.fc1' for tower in ('featurizer',
             'fused_featurizer')]  # fmt: skip
    for name in names:
        network.get_submodule(name).register_forward_pre_hook(note(name))
    sequence_of(network, torch.rand(3, 12, 32, 32), torch.tensor([[1, 4, 3]] * 3))
    for name, prefix in zip(names, (5, 0), strict=True):
        types = tower_token_types(network, name)
        assert types.dtype == torch.int8 and 3 * len(types) == rows[name]
        assert int((types == OTHER).sum()) == 2 * prefix and int((types == VISUAL).sum()) == 8
        grids = tower_patches(network, name)
        places = [place for grid in grids.values() for place in range(grid.start, grid.stop)]
        assert places == torch.nonzero(types == VISUAL).flatten().tolist()
    with pytest.raises(ValueError, match='not a layer of a vision tower'):
        tower_token_types(network, 'language_model.model.layers.0.mlp.up_proj')
