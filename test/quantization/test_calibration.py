# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.install import replace_linear
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.calibration import EpisodeFile, load_calibration
from hbvla_ros.quantization.capture import BlockInputs
from hbvla_ros.quantization.methods import rtn
from hbvla_ros.quantization.probe import FLOOR, action_token_weights
from hbvla_ros.quantization.targets import block_chains, quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))


def test_inputs_are_exactly_those_of_the_deployed_policy(
    checkpoint: Checkpoint, episodes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.load(checkpoint.folder)
    seen: list[tuple[Any, ...]] = []
    policy.network.register_forward_pre_hook(lambda _module, args: seen.append(args))
    episode = EpisodeFile(episodes_folder / 'episode_1.npz', checkpoint.platform)
    images = {camera: episode.image(camera, 5) for camera in checkpoint.platform.cameras}
    policy.act(Observation(images, episode.proprioception(5), episode.instruction, 0.0))
    data = load_calibration(episodes_folder, checkpoint, 1000, 0)
    assert data.frames == 48
    pixels = torch.cat([batch.pixel_values for batch in data.batches])
    row = int((pixels - seen[0][0]).abs().amax(dim=(1, 2, 3)).argmin())
    assert torch.equal(pixels[row], seen[0][0][0])
    proprio = torch.cat([b.proprio for b in data.batches if b.proprio is not None])
    assert torch.equal(proprio[row], seen[0][2][0])
    ids = [ids for batch in data.batches for ids in batch.input_ids]
    assert torch.equal(ids[row], seen[0][1][0])


def test_frames_are_drawn_by_the_seed(checkpoint: Checkpoint, episodes_folder: Path) -> None:
    sets = [load_calibration(episodes_folder, checkpoint, 9, seed) for seed in (0, 0, 1)]
    digests = [data.description['digest'] for data in sets]
    assert digests[0] == digests[1] != digests[2]
    assert [data.frames for data in sets] == [9, 9, 9]
    assert sum(len(batch.pixel_values) for batch in sets[0].batches) == 9


def rewrite(path: Path, **changes: Any) -> None:
    with np.load(path) as arrays:
        content = dict(arrays)
    content.update(changes)
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'jpeg_cam_low': None},
            r'episode_0\.npz: no jpeg_cam_low; the policy needs camera cam_low',
        ),
        ({'proprioception': np.zeros((12, 7))}, 'has 7 values, the policy takes 14'),
        ({'instruction': None}, 'no instruction'),
        ({'jpeg_cam_high': np.zeros(90000, np.uint8)}, r'episode_0\.npz: frame \d+ of cam_high'),
    ],
)
def test_unfit_episodes_are_named(
    changes: dict[str, Any], message: str, checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    rewrite(episodes_folder / 'episode_0.npz', **changes)
    with pytest.raises(HbvlaError, match=message):
        load_calibration(episodes_folder, checkpoint, 1000, 0)


def test_no_frames_and_damaged_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(HbvlaError, match='no usable frame'):
        load_calibration(tmp_path, checkpoint, 5, 0)
    with pytest.raises(HbvlaError, match='no such folder'):
        load_calibration(tmp_path / 'absent', checkpoint, 5, 0)
    (tmp_path / 'episode_1.npz').write_bytes(b'PK not a zip')
    with pytest.raises(HbvlaError, match=r'episode_1\.npz: not a readable episode'):
        load_calibration(tmp_path, checkpoint, 5, 0)


def test_frames_decode_as_recorded(episodes_folder: Path, checkpoint: Checkpoint) -> None:
    episode = EpisodeFile(episodes_folder / 'episode_0.npz', checkpoint.platform)
    with np.load(episode.path) as arrays:
        begin, end = arrays['offset_cam_low'][3:5]
        data = arrays['jpeg_cam_low'][begin:end].tobytes()
    assert np.array_equal(episode.image('cam_low', 3), simplejpeg.decode_jpeg(data))
    assert len(episode) == 12


def test_blocks_see_what_the_quantized_blocks_before_them_put_out(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    network = checkpoint.load_network()
    data = load_calibration(episodes_folder, checkpoint, 12, 0)
    chain = block_chains(network)[2]
    assert [block for block, _ in chain] == [f'language_model.model.layers.{i}' for i in (0, 1)]
    inputs = BlockInputs.record(network, chain[0][0], data.batches)
    for name in chain[0][1]:
        weight = network.get_parameter(f'{name}.weight').detach()
        layer = rtn.quantize(weight, None, rtn.RtnOptions())
        replace_linear(network, name, layer, 'bf16', torch.float32)
    inputs.advance(network, chain[0][0])
    name = f'{chain[1][0]}.mlp.down_proj'
    found = inputs.hessians(network, chain[1][0], chain[1][1], None)[name]

    tokens: list[torch.Tensor] = []
    network.get_submodule(name).register_forward_pre_hook(
        lambda _module, args: tokens.append(args[0].detach().flatten(0, -2))
    )
    with torch.no_grad():
        for batch in data.batches:
            network(*batch.arguments())
    every = torch.cat(tokens)
    assert found.tokens == len(every)
    torch.testing.assert_close(found.mean(), every.T @ every / len(every), rtol=1e-4, atol=1e-5)


def test_probe_measures_the_action_jacobian(checkpoint: Checkpoint, episodes_folder: Path) -> None:
    network = checkpoint.load_network().requires_grad_(False)
    data = load_calibration(episodes_folder, checkpoint, 3, 0)
    batch = data.batches[0]
    name = 'language_model.model.layers.1.self_attn.o_proj'
    weights = action_token_weights(network, [name], data.batches, 200, 0)

    held: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        held.append(output.detach().requires_grad_())
        return held[-1]

    handle = network.get_submodule(name).register_forward_hook(keep)
    actions = network(*batch.arguments())
    handle.remove()
    exact = torch.zeros(held[0].shape[:-1])
    for value in actions.flatten(1).sum(dim=0):
        (gradient,) = torch.autograd.grad(value, held, retain_graph=True)
        exact += gradient.square().sum(dim=-1)
    exact = exact / exact.mean(dim=1, keepdim=True)
    found = (weights[name][0].reshape(exact.shape) - FLOOR) / (1 - FLOOR)
    # The clip bounds the largest token; the others agree within the noise of 200 projections.
    below = exact < 0.9 * exact.max()
    assert float((found - exact)[below].norm() / exact[below].norm()) < 0.2
    assert all(float(call.min()) >= FLOOR for calls in weights.values() for call in calls)


def test_probe_gives_one_weight_a_token_and_call(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    network = checkpoint.load_network().requires_grad_(False)
    data = load_calibration(episodes_folder, checkpoint, 20, 0)
    names = quantized_linears(network)
    weights = action_token_weights(network, names, data.batches, 1, 0)
    for chain in block_chains(network):
        inputs = BlockInputs.record(network, chain[0][0], data.batches)
        totals = inputs.hessians(network, *chain[0], weights)
        for name in chain[0][1]:
            assert totals[name].tokens == sum(len(call) for call in weights[name])


def test_every_denoising_step_is_calibrated(make_tiny_checkpoint, episodes_folder: Path) -> None:
    folder = make_tiny_checkpoint(
        config={'head': 'diffusion'},
        platform={'action_slots_per_step': None, 'diffusion_steps_inference': 3},
    )
    checkpoint = Checkpoint.open(folder, resolve_platform(folder))
    network = checkpoint.load_network().requires_grad_(False)
    data = load_calibration(episodes_folder, checkpoint, 6, 0)
    weights = action_token_weights(network, quantized_linears(network), data.batches, 1, 0)
    tower, _, decoder = block_chains(network)
    for chain, calls in ((tower, 1), (decoder, 3)):
        inputs = BlockInputs.record(network, chain[0][0], data.batches)
        totals = inputs.hessians(network, *chain[0], weights)
        for name in chain[0][1]:
            assert len(weights[name]) == calls * len(data.batches)
            assert totals[name].tokens == sum(len(call) for call in weights[name])
