# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.install import replace_linear
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.calibration import load_calibration
from hbvla_ros.quantization.methods import rtn
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.probe_action import action_importance
from hbvla_ros.quantization.probe_options import ProbeOptions
from hbvla_ros.quantization.targets import block_chains, quantized_linears
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.recordings.open import open_recordings
from hbvla_ros.recordings.recording import Needs
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.platform import resolve_platform
from hbvla_ros.vla.tokens import PromptTokenizer


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))


class Seen:
    """A recording of observations that are in memory; None stands for a damaged one."""

    kind = 'memory'

    def __init__(self, name: str, observations: list[Observation | None]) -> None:
        self.name, self.observations, self.closed = name, observations, 0

    def __len__(self) -> int:
        return len(self.observations)

    def observation(self, index: int) -> Observation:
        found = self.observations[index]
        if found is None:
            raise HbvlaError(f'frame {index} is damaged')
        return found

    def digest(self) -> str:
        return self.name

    def close(self) -> None:
        self.closed += 1


def observe(mark: float, task: str = 'put the cube') -> Observation:
    """An observation that is told from others by its proprioception."""
    image = np.random.default_rng(int(100 * mark)).integers(0, 256, (40, 40, 3), np.uint8)
    images = {camera: image for camera in ('cam_high', 'cam_low')}
    return Observation(images, np.full(14, mark), task, 0.0)


def marks(batches: list[NetworkInputs]) -> list[float]:
    """Which observations are in batches; proprioception is scaled from -2 .. 2."""
    rows = [row for batch in batches if batch.proprio is not None for row in batch.proprio]
    return [round(2 * float(row[0]), 4) for row in rows]


def memory(episodes: int, frames: int) -> list[Seen]:
    """Episodes whose frame f of episode e is marked e / 10 + f / 1000."""
    return [
        Seen(f'e{e}', [observe(e / 10 + f / 1000) for f in range(frames)]) for e in range(episodes)
    ]


def test_inputs_are_exactly_those_of_the_deployed_policy(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    policy = Policy.load(checkpoint.folder)
    seen: list[tuple[Any, ...]] = []
    policy.network.register_forward_pre_hook(lambda _module, args: seen.append(args))
    platform = checkpoint.platform
    needs = Needs(platform.cameras, platform.proprio_dim, platform.robot)
    recordings = open_recordings(episodes_folder, needs)
    policy.act(recordings[1].observation(5))
    data = load_calibration(recordings, checkpoint, 1000, 0)
    assert data.frames == 48
    pixels = torch.cat([batch.pixel_values for batch in data.batches])
    row = int((pixels - seen[0][0]).abs().amax(dim=(1, 2, 3)).argmin())
    assert torch.equal(pixels[row], seen[0][0][0])
    proprio = torch.cat([b.proprio for b in data.batches if b.proprio is not None])
    assert torch.equal(proprio[row], seen[0][2][0])
    ids = [ids for batch in data.batches for ids in batch.input_ids]
    assert torch.equal(ids[row], seen[0][1][0])


def test_frames_are_drawn_by_the_seed(checkpoint: Checkpoint, episodes_folder: Path) -> None:
    sets = [read_calibration(episodes_folder, checkpoint, 9, seed, 3) for seed in (0, 0, 1)]
    digests = [data.description['digest'] for data in sets]
    assert digests[0] == digests[1] != digests[2]
    for first, second in zip(*(data.batches + data.held_out for data in sets[:2]), strict=True):
        assert torch.equal(first.pixel_values, second.pixel_values)
    assert [data.frames for data in sets] == [9, 9, 9]
    assert sum(len(batch.pixel_values) for batch in sets[0].batches) == 9
    assert sets[0].description == {
        'digest': digests[0],
        'source': 'simulator',
        'episodes': 3,
        'frames': 9,
        'held_out_frames': 3,
        'held_out_episodes': 'other',
        'seed': 0,
        'skipped': 0,
    }


def test_one_frame_of_each_trajectory_when_there_are_enough(checkpoint: Checkpoint) -> None:
    found = marks(load_calibration(memory(12, 30), checkpoint, 10, 3).batches)
    assert len({int(10 * mark + 1e-6) for mark in found}) == len(found) == 10
    # Uniformly random inside the trajectory: not all from one end of it.
    places = [round(1000 * (mark - int(10 * mark + 1e-6) / 10)) for mark in found]
    assert len(set(places)) > 5 and min(places) < 10 and max(places) > 19


def test_otherwise_evenly_and_without_repetition(checkpoint: Checkpoint) -> None:
    found = marks(load_calibration(memory(3, 30), checkpoint, 10, 3).batches)
    assert len(set(found)) == 10
    counts = [sum(int(10 * mark + 1e-6) == episode for mark in found) for episode in range(3)]
    assert sorted(counts) == [3, 3, 4]
    short = [*memory(1, 2), Seen('e1', [observe(0.5 + f / 1000) for f in range(20)])]
    assert len(marks(load_calibration(short, checkpoint, 12, 0).batches)) == 12


@pytest.mark.parametrize(('episodes', 'frames', 'where'), [(8, 5, 'other'), (1, 40, 'same')])
def test_further_frames_of_the_refinement_change_no_others(
    checkpoint: Checkpoint, episodes: int, frames: int, where: str
) -> None:
    recordings = memory(episodes, frames)
    plain = load_calibration(recordings, checkpoint, 6, 1, 3)
    data = load_calibration(recordings, checkpoint, 6, 1, 3, refine_frames=20)
    assert marks(data.batches) == marks(plain.batches)
    assert marks(data.held_out) == marks(plain.held_out)
    store = data.refinement
    assert store is not None and len(store) == 20
    seen = marks([store.inputs([row]) for row in range(20)])
    assert sorted(seen[:6]) == sorted(marks(data.batches))
    assert len(set(seen[6:]) - set(marks(data.batches + data.held_out))) == 14
    assert data.description['held_out_episodes'] == where
    assert data.description['digest'] != plain.description['digest']
    # Of the episodes that calibration is of, never of those held out; no more than these have.
    if where == 'other':
        store = load_calibration(recordings, checkpoint, 6, 1, 3, refine_frames=1000).refinement
        assert store is not None
        seen = marks([store.inputs([row]) for row in range(len(store))])
        used = {int(10 * mark + 1e-6) for mark in seen}
        assert not used & {int(10 * mark + 1e-6) for mark in marks(data.held_out)}
        assert len(store) == frames * len(used)
    # Fewer than the calibration frames are these.
    store = load_calibration(recordings, checkpoint, 6, 1, 3, refine_frames=2).refinement
    assert store is not None and len(store) == 6


def test_frames_come_from_every_place(
    checkpoint: Checkpoint, episodes_folder: Path, tmp_path: Path
) -> None:
    episodes = sorted(episodes_folder.glob('episode_*.npz'))
    places = [tmp_path / 'expert', tmp_path / 'own_states']
    for place, part in zip(places, (episodes[::2], episodes[1::2]), strict=True):
        place.mkdir()
        for path in part:
            (place / path.name).symlink_to(path)
    together = read_calibration(places, checkpoint, 1000, 0)
    each = [read_calibration(place, checkpoint, 1000, 0) for place in places]
    assert together.frames == 48 == sum(data.frames for data in each)
    assert sorted(marks(together.batches)) == sorted(
        mark for data in each for mark in marks(data.batches)
    )


def test_frames_of_the_refinement_are_what_calibration_shows_the_network(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    data = read_calibration(episodes_folder, checkpoint, 12, 0)
    store = data.refinement
    assert store is not None and len(store) == 12
    expected = {
        tuple(batch.proprio[row].tolist()): (batch.pixel_values[row], batch.input_ids[row])
        for batch in data.batches
        if batch.proprio is not None
        for row in range(len(batch.input_ids))
    }
    for row, length in enumerate(store.lengths):
        found = store.inputs([row])
        assert found.proprio is not None and found.noise is None
        pixels, ids = expected.pop(tuple(found.proprio[0].tolist()))
        assert torch.equal(found.pixel_values[0], pixels)
        assert torch.equal(found.input_ids[0], ids) and len(ids) == length
    assert not expected


@pytest.mark.parametrize(
    ('episodes', 'frames', 'wanted', 'where'),
    [
        (8, 5, (6, 3), 'other'),
        # Too few to spare an episode, but enough frames.
        (1, 30, (6, 3), 'same'),
        (2, 6, (9, 3), 'same'),
        # Fewer than asked: calibration first, an eighth is held out all the same.
        (1, 16, (60, 30), 'same'),
        (1, 6, (3, 16), 'same'),
        # Most episodes stay for calibration.
        (4, 6, (3, 16), 'same'),
    ],
)
def test_held_out_frames_are_others(
    checkpoint: Checkpoint, episodes: int, frames: int, wanted: tuple[int, int], where: str
) -> None:
    data = load_calibration(memory(episodes, frames), checkpoint, wanted[0], 1, wanted[1])
    used, kept = marks(data.batches), marks(data.held_out)
    assert not set(used) & set(kept)
    assert data.description['held_out_episodes'] == where
    total = episodes * frames
    few = {(60, 30): (14, 2), (3, 16): (3, 3)}
    assert (len(used), len(kept)) == (wanted if sum(wanted) <= total else few[wanted])
    if where == 'other':
        assert not {int(10 * m + 1e-6) for m in used} & {int(10 * m + 1e-6) for m in kept}


def test_unusable_frames_are_passed_over_and_counted(checkpoint: Checkpoint) -> None:
    recordings = memory(4, 3)
    good = observe(0.001)
    recordings[1].observations = [None] * 3
    recordings[2].observations = [dataclasses.replace(good, proprioception=np.full(14, np.nan))] * 3
    dark = {**good.images, 'cam_low': np.full((40, 40, 3), 9, np.uint8)}
    recordings[0].observations[1] = dataclasses.replace(good, images=dark)
    data = load_calibration(recordings, checkpoint, 5, 0)
    assert sorted(marks(data.batches)) == [0.0, 0.002, 0.3, 0.301, 0.302]
    assert data.description['skipped'] == 7 and data.description['episodes'] == 2
    assert all(recording.closed for recording in recordings)
    with pytest.raises(HbvlaError, match='no usable frame .3 unusable: e1: frame . is damaged'):
        load_calibration(recordings[1:2], checkpoint, 5, 0)
    with pytest.raises(HbvlaError, match='unusable: e2: proprioception is not finite'):
        load_calibration(recordings[2:3], checkpoint, 5, 0)
    with pytest.raises(HbvlaError, match='unusable: e0: camera cam_low is black'):
        recordings[0].observations = recordings[0].observations[1:2]
        load_calibration(recordings[:1], checkpoint, 5, 0)
    with pytest.raises(HbvlaError, match='no usable frame is left to hold out'):
        load_calibration(memory(1, 1), checkpoint, 5, 0, 2)


def test_pictures_are_those_of_calibration_frames(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    data = read_calibration(episodes_folder, checkpoint, 20, 0, 4)
    assert len(data.pictures) == 3
    preprocessor = Preprocessor.read(checkpoint.folder)
    pipeline = ImagePipeline(checkpoint.platform, preprocessor)
    for picture in data.pictures:
        batch = data.batches[picture.batch]
        assert tuple(picture.images) == ('cam_high', 'cam_low')
        pixels = [pipeline.normalise(image) for image in picture.images.values()]
        assert np.array_equal(np.concatenate(pixels), batch.pixel_values[picture.sample].numpy())
        tokenizer = PromptTokenizer.read(checkpoint.folder, empty=checkpoint.config.empty_token_id)
        assert tokenizer(picture.instruction) == batch.input_ids[picture.sample].tolist()


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
    ],
)
def test_unfit_episodes_are_named(
    changes: dict[str, Any], message: str, checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    rewrite(episodes_folder / 'episode_0.npz', **changes)
    with pytest.raises(HbvlaError, match=message):
        read_calibration(episodes_folder, checkpoint, 1000, 0)


def test_damaged_images_of_an_episode(checkpoint: Checkpoint, episodes_folder: Path) -> None:
    rewrite(episodes_folder / 'episode_0.npz', jpeg_cam_high=np.zeros(90000, np.uint8))
    data = read_calibration(episodes_folder, checkpoint, 1000, 0)
    assert (data.frames, data.description['skipped']) == (36, 12)


def test_no_frames_and_damaged_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / 'episodes').mkdir()
    with pytest.raises(HbvlaError, match='episodes: no recorded episode in it'):
        read_calibration(tmp_path / 'episodes', checkpoint, 5, 0)
    with pytest.raises(HbvlaError, match='no such folder'):
        read_calibration(tmp_path / 'absent', checkpoint, 5, 0)
    (tmp_path / 'episode_1.npz').write_bytes(b'PK not a zip')
    with pytest.raises(HbvlaError, match=r'episode_1\.npz: not a readable episode'):
        read_calibration(tmp_path, checkpoint, 5, 0)


def test_blocks_see_what_the_quantized_blocks_before_them_put_out(
    checkpoint: Checkpoint, episodes_folder: Path, record_inputs: Any
) -> None:
    network = checkpoint.load_network()
    data = read_calibration(episodes_folder, checkpoint, 12, 0)
    chain = block_chains(network)[2]
    assert [block for block, _ in chain] == [f'language_model.model.layers.{i}' for i in (0, 1)]
    inputs = record_inputs(network, chain[0][0], data.batches)
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
    data = read_calibration(episodes_folder, checkpoint, 3, 0)
    batch = data.batches[0]
    name = 'language_model.model.layers.1.self_attn.o_proj'
    weights = action_importance(network, [name], data.batches, ProbeOptions(probes=200), 0).weights

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
    floor = ProbeOptions().floor
    found = (weights[name][0].reshape(exact.shape) - floor) / (1 - floor)
    # The clip bounds the largest token; the others agree within the noise of 200 projections.
    below = exact < 0.9 * exact.max()
    assert float((found - exact)[below].norm() / exact[below].norm()) < 0.2
    assert all(float(call.min()) >= floor for calls in weights.values() for call in calls)


def test_probe_gives_one_weight_a_token_and_call(
    checkpoint: Checkpoint, episodes_folder: Path, record_inputs: Any
) -> None:
    network = checkpoint.load_network().requires_grad_(False)
    data = read_calibration(episodes_folder, checkpoint, 20, 0)
    names = quantized_linears(network)
    weights = action_importance(network, names, data.batches, ProbeOptions(probes=1), 0).weights
    for chain in block_chains(network):
        inputs = record_inputs(network, chain[0][0], data.batches)
        totals = inputs.hessians(network, *chain[0], weights)
        for name in chain[0][1]:
            assert totals[name].tokens == sum(len(call) for call in weights[name])


def test_every_denoising_step_is_calibrated(
    make_tiny_checkpoint, episodes_folder: Path, record_inputs: Any
) -> None:
    folder = make_tiny_checkpoint(
        config={'head': 'diffusion'},
        platform={'action_slots_per_step': None, 'diffusion_steps_inference': 3},
    )
    checkpoint = Checkpoint.open(folder, resolve_platform(folder))
    network = checkpoint.load_network().requires_grad_(False)
    data = read_calibration(episodes_folder, checkpoint, 6, 0)
    weights = action_importance(
        network, quantized_linears(network), data.batches, ProbeOptions(probes=1), 0
    ).weights
    tower, _, decoder = block_chains(network)
    for chain, calls in ((tower, 1), (decoder, 3)):
        inputs = record_inputs(network, chain[0][0], data.batches)
        totals = inputs.hessians(network, *chain[0], weights)
        for name in chain[0][1]:
            assert len(weights[name]) == calls * len(data.batches)
            assert totals[name].tokens == sum(len(call) for call in weights[name])
