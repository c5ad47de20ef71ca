# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.quantization import quantize_benchmark
from hbvla_ros.quantization.quantize_benchmark import (
    QuantizeBenchmark,
    markdown_report,
    peak_resident_bytes,
)
from hbvla_ros.quantization.random_checkpoint import (
    RandomRecording,
    RandomShape,
    write_random_checkpoint,
)
from hbvla_ros.quantization.stage_clock import Clock, extrapolate
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty

SHAPES = Path(__file__).parents[1] / 'golden' / 'openvla_oft_param_shapes.tsv'
SMALL = RandomShape(decoder_layers=2, tower_blocks=1, cameras=1, width_divisor=64)


def silent(title: str, done: int, steps: int) -> None:
    """Tell nobody."""


def test_whole_network_has_the_real_shapes() -> None:
    shape = RandomShape(decoder_layers=32, tower_blocks=26)
    network = build_empty(shape.config, shape.platform, inference_only=False)
    found = {name: tuple(p.shape) for name, p in network.named_parameters()}
    lines = [line.split('\t') for line in SHAPES.read_text().splitlines() if line]
    wanted = {fields[0]: ast.literal_eval(fields[1]) for fields in lines}
    assert len(wanted) == 982
    assert {name: found[name] for name in wanted} == wanted
    rest = {name.partition('.')[0] for name in set(found) - set(wanted)}
    assert rest == {'action_head', 'proprio_projector'}


def test_random_checkpoint_is_the_same_each_time_and_computes(tmp_path: Path) -> None:
    for name in ('one', 'other'):
        write_random_checkpoint(tmp_path / name, SMALL, seed=3)
    for path in (tmp_path / 'one').iterdir():
        assert path.read_bytes() == (tmp_path / 'other' / path.name).read_bytes(), path.name
    checkpoint = Checkpoint.open(tmp_path / 'one', SMALL.platform)
    assert checkpoint.config == SMALL.config
    embedding = checkpoint.tensor('language_model.model.embed_tokens.weight')
    assert embedding.dtype == torch.bfloat16
    assert float(embedding.float().std()) == pytest.approx(0.02, rel=0.02)
    weight = checkpoint.tensor('language_model.model.layers.1.mlp.down_proj.weight').float()
    assert float(weight.std()) == pytest.approx(172**-0.5, rel=0.05)
    assert float(weight[0].mean()) != float(weight[1].mean())
    norm = checkpoint.tensor('language_model.model.norm.weight')
    assert bool((norm == 1).all())
    network = checkpoint.load_network()
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randn((1, 6, 224, 224), generator=noise)
    with torch.no_grad():
        actions = network(pixels, torch.tensor([[1, 5, 6, 29871]]), torch.zeros(1, 14), None)
    assert actions.shape == (1, 25, 14) and bool(torch.isfinite(actions).all())
    assert 1e-3 < float(actions.std()) < 1e3


def test_parts_of_a_tensor_are_drawn_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part has its place: the matrix is not one part repeated."""
    from hbvla_ros.quantization import random_checkpoint

    monkeypatch.setattr(random_checkpoint, '_CHUNK', 1000)
    checkpoint = Checkpoint.open(write_random_checkpoint(tmp_path / 'parts', SMALL), SMALL.platform)
    for name in ('language_model.model.layers.0.self_attn.q_proj.weight',
                 'action_head.model.fc1.weight'):  # fmt: skip
        flat = checkpoint.tensor(name).float().flatten()
        assert len(flat) > 2000 and not torch.equal(flat[:1000], flat[1000:2000])
        assert float(flat[-1000:].abs().mean()) > 0


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(HbvlaError, match='set TMPDIR to a folder with more space'):
        write_random_checkpoint(tmp_path / 'file' / 'folder', SMALL)


def test_random_frames_are_smooth_and_differ() -> None:
    recording = RandomRecording(SMALL.platform, 2, seed=1)
    assert len(recording) == 2
    one, other = recording.observation(0), recording.observation(1)
    image = one.images['cam_high'].astype(int)
    assert image.shape == (480, 640, 3)
    # Neighbours are alike, the two ends of the image are not.
    assert np.abs(np.diff(image, axis=1)).mean() < 0.1 * image.std()
    assert not np.array_equal(one.images['cam_high'], other.images['cam_high'])
    again = RandomRecording(SMALL.platform, 2, seed=1).observation(1)
    assert np.array_equal(other.images['cam_high'], again.images['cam_high'])
    assert np.array_equal(other.proprioception, again.proprioception)
    assert recording.digest() != RandomRecording(SMALL.platform, 2, seed=2).digest()


@pytest.mark.parametrize(
    ('benchmark', 'message'),
    [
        (QuantizeBenchmark(RandomShape(decoder_layers=0)), '--decoder-layers 0: use 1 to 32'),
        (QuantizeBenchmark(RandomShape(tower_blocks=27)), '--tower-blocks 27: use 1 to 26'),
        (QuantizeBenchmark(RandomShape(cameras=5)), '--cameras 5: use 1 to 4'),
        (QuantizeBenchmark(RandomShape(width_divisor=3)), '--width-divisor 3: use one of 1, 2'),
        (QuantizeBenchmark(frames=0), '--frames 0: at least 1'),
        (QuantizeBenchmark(method='quantum'), "method 'quantum' is unknown"),
        (QuantizeBenchmark(probe='other'), '--probe other'),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    benchmark: QuantizeBenchmark, message: str, tmp_path: Path
) -> None:
    with pytest.raises(HbvlaError) as caught:
        benchmark.run(tmp_path)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def entry(size: int) -> LayerEntry:
    return LayerEntry(10, 20, 'sign_planes', {}, 1.0, size, [], 0.1)


def test_clock_charges_stages_and_layers() -> None:
    times = iter([0.0, 1.0, 3.0, 7.0, 7.5, 9.0, 10.0])
    told: list[tuple[str, int, int]] = []
    clock = Clock(lambda *values: told.append(values), lambda: next(times))
    clock.stage('reading', 1)  # 1
    clock.step()  # 3
    clock.stage('quantizing', 2)  # 7
    clock.step('language_model.model.layers.0.self_attn.q_proj', entry(1))  # 7.5
    clock.step('language_model.model.layers.1.self_attn.q_proj', entry(1))  # 9
    clock.stop()  # 10
    assert clock.stages == {
        'checking the request': 1.0, 'reading': 6.0, 'quantizing': 2.0,
        'last block and writing': 1.0,
    }  # fmt: skip
    assert clock.layer_types() == [{'type': 'decoder q_proj', 'layers': 2, 'seconds': 2.0}]
    assert [(row['kind'], row['built'], row['seconds']) for row in clock.blocks()] == [
        ('DINOv2', 0, 0), ('SigLIP', 0, 0), ('decoder', 2, 2.0),
    ]  # fmt: skip
    assert told[1:3] == [('reading', 1, 1), ('quantizing', 0, 2)]


def test_extrapolation_counts_each_kind_of_block() -> None:
    measured = {
        'blocks': [
            {'kind': 'DINOv2', 'built': 1, 'seconds': 2.0, 'count': 23},
            {'kind': 'SigLIP', 'built': 2, 'seconds': 4.0, 'count': 26},
            {'kind': 'decoder', 'built': 2, 'seconds': 10.0, 'count': 32},
        ],
        'stages': {'quantizing': 16.0, 'checking weights': 5.0},
        'folder_bytes': 1000,
        'peak_resident_bytes': 500,
    }
    layers = {
        'vision_backbone.featurizer.blocks.0.attn.qkv': entry(30),
        'vision_backbone.fused_featurizer.blocks.0.attn.qkv': entry(30),
        'vision_backbone.fused_featurizer.blocks.1.attn.qkv': entry(30),
        'language_model.model.layers.0.self_attn.q_proj': entry(40),
        'language_model.model.layers.1.self_attn.q_proj': entry(40),
    }
    whole = extrapolate(measured, layers, 70)
    assert whole['quantizing_seconds'] == 2 * 23 + 2 * 26 + 5 * 32
    blocks = 23 + 26 + 32
    assert whole['quantized_weights'] == 200 * blocks
    assert whole['seconds'] == pytest.approx(whole['quantizing_seconds'] + 5 * blocks / 5)
    assert whole['folder_bytes'] == 1000 + 22 * 30 + 24 * 30 + 30 * 40
    assert whole['peak_resident_bytes'] == 570
    assert (whole['decoder_layers'], whole['tower_blocks']) == (32, [23, 26])


def test_measures_a_quantization_in_a_process_of_its_own(tmp_path: Path) -> None:
    told: set[str] = set()
    benchmark = QuantizeBenchmark(SMALL, 'signplane:1:fast', frames=1, probe='block')
    result = benchmark.run(tmp_path, lambda title, done, steps: told.add(title))
    assert {'writing random weights', 'frames', 'checking weights', 'quantizing'} <= told
    assert result['method'] == 'signplane:1:fast' and result['frames'] == 1
    assert result['options']['planes'] == 1 and result['shape']['width_divisor'] == 64
    assert {'checking weights', 'quantizing', 'last block and writing'} <= result['stages'].keys()
    assert sum(result['stages'].values()) == pytest.approx(result['seconds'], rel=0.2)
    counts = {row['type']: row['layers'] for row in result['layer_types']}
    assert counts['decoder down_proj'] == 2 and counts['SigLIP qkv'] == 1 and len(counts) == 15
    assert [row['built'] for row in result['blocks']] == [1, 1, 2]
    # The process has torch in it and a small network, nothing of this one.
    assert 1e8 < result['peak_resident_bytes'] < 3e9
    assert result['peak_device_bytes'] is None
    folder = tmp_path / 'quantized'
    assert result['folder_bytes'] == sum(p.stat().st_size for p in folder.iterdir())
    assert 1 < result['stored_bits'] < 3 and result['nominal_bits'] == 1
    whole = result['extrapolation']
    assert whole['seconds'] > result['seconds']
    assert whole['quantized_weights'] > 10 * result['quantized_weights']
    text = markdown_report(result)
    assert '| decoder layers | 2 | 32 |' in text and '| widths | 1/64 | 1/64 |' in text
    assert '| decoder down_proj | 2 | ' in text


def test_a_killed_process_is_out_of_memory(tmp_path: Path) -> None:
    def kill(title: str, done: int, steps: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    write_random_checkpoint(tmp_path / 'random', SMALL)
    with pytest.raises(HbvlaError, match='was killed, as the kernel does for want of memory'):
        quantize_benchmark._in_a_process_of_its_own(QuantizeBenchmark(SMALL), tmp_path, kill)


def test_errors_of_the_other_process_arrive(tmp_path: Path) -> None:
    with pytest.raises(HbvlaError, match='no such checkpoint folder'):
        quantize_benchmark._in_a_process_of_its_own(QuantizeBenchmark(SMALL), tmp_path, silent)


def test_peak_memory_is_that_of_the_process() -> None:
    before = peak_resident_bytes()
    block = np.ones(before + 100_000_000, dtype=np.uint8)
    assert len(block) < peak_resident_bytes() < 1e11
