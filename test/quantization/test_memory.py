# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization import memory
from hbvla_ros.quantization.memory import available_bytes, check_memory, needed_bytes
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.platform import resolve_platform

PLAIN, ACTION = Request(probe='none').resolve(), Request().resolve()


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))


def test_needed_bytes_of_a_network_that_can_be_counted(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    few = read_calibration(episodes_folder, checkpoint, 8, 0)
    many = read_calibration(episodes_folder, checkpoint, 16, 0)
    need = needed_bytes(skeleton, few, ACTION)
    # Two cameras of four patches, proprioception, words, 6 action slots, stop; four bytes each.
    batch = max(few.batches, key=lambda one: len(one.pixel_values))
    frames = len(batch.pixel_values)
    tokens = 1 + 8 + 1 + batch.input_ids.shape[1] - 1 + 6 + 1
    layer = 32 + 2 * 16 + 32 + 2 * 48 + 32
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    assert need.gradient > 4 * parameters + 3 * 4 * frames * tokens * 2 * layer
    # The towers' tokens: one class and four register tokens before the patches of the first.
    kept = 4 * (2 * 9 * 16 + 2 * 4 * 24 + tokens * 32)
    assert need.activations == pytest.approx(8 * kept, rel=0.1)
    assert needed_bytes(skeleton, many, ACTION).activations == pytest.approx(16 * kept, rel=0.1)
    assert needed_bytes(skeleton, many, ACTION).working == need.working
    plain = needed_bytes(skeleton, few, PLAIN)
    assert plain.gradient == 0 and plain.working == need.working
    # One decoder layer, its Hessians and the widest solver.
    sizes = {name: p.numel() for name, p in skeleton.named_parameters()}
    outside = sum(s for n, s in sizes.items() if '.blocks.' not in n and '.layers.' not in n)
    block = sum(size for name, size in sizes.items() if '.layers.0.' in name)
    hessians = 6 * 32**2 + 48**2
    solver = 3 * 2 * 48**2 + 4 * 32 * 48
    assert need.working == 4 * (outside + block + hessians + solver)


def test_large_networks_are_differentiated_block_by_block(
    checkpoint: Checkpoint, episodes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    data = read_calibration(episodes_folder, checkpoint, 8, 0)
    whole = needed_bytes(skeleton, data, ACTION)
    monkeypatch.setattr(memory, 'WHOLE_NETWORK_PARAMETERS', 1000)
    streamed = needed_bytes(skeleton, data, ACTION)
    # The inputs of all blocks wait, but nothing is in memory as a whole.
    assert streamed.gradient == 0 and streamed.working == whole.working
    assert streamed.activations > 3 * whole.activations


def test_too_little_memory_is_refused_before_anything_is_loaded(
    checkpoint: Checkpoint, episodes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    calibration = read_calibration(episodes_folder, checkpoint, 4, 0)
    need = needed_bytes(skeleton, calibration, ACTION)
    assert need.working < need.gradient
    for available, probe, way_out in (
        (need.gradient - 1, 'action', 'add --probe block'),
        (need.working - 1, 'action', 'leave out --calibration'),
        (need.working - 1, 'none', 'leave out --calibration'),
    ):
        monkeypatch.setattr(memory, 'available_bytes', lambda available=available: available)
        with pytest.raises(HbvlaError, match=f'needs about .* GB of memory, .*; {way_out}$'):
            quantize_checkpoint(checkpoint, Request(probe=probe), tmp_path / 'out', calibration)
        assert not list(tmp_path.glob('out*'))
    monkeypatch.setattr(memory, 'available_bytes', lambda: need.working)
    assert check_memory(skeleton, calibration, PLAIN, 0)


def test_activations_go_to_disk_where_they_take_too_much(
    checkpoint: Checkpoint, episodes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    calibration = read_calibration(episodes_folder, checkpoint, 4, 0)
    need = needed_bytes(skeleton, calibration, PLAIN)
    for available, limit, on_disk in (
        (100 * need.activations + need.working, None, False),
        (3 * need.activations + need.working, 10 * need.activations, False),
        (100 * need.activations + need.working, need.activations - 1, True),
        (None, None, False),
        (None, 0, True),
    ):
        monkeypatch.setattr(memory, 'available_bytes', lambda available=available: available)
        assert check_memory(skeleton, calibration, PLAIN, limit) == on_disk
    monkeypatch.setattr(memory, 'available_bytes', lambda: 4 * need.activations - 4)
    monkeypatch.setattr(memory, '_working_bytes', lambda *_: 0)
    assert check_memory(skeleton, calibration, PLAIN)


def test_more_frames_than_fit_are_refused_before_they_are_read(
    checkpoint: Checkpoint, episodes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_calibration(episodes_folder, checkpoint, 2, 0)
    each = data.batches[0].pixel_values[0].nbytes
    # Six float32 frames and eight uint8 ones are seven of the first kind.
    monkeypatch.setattr(memory, 'available_bytes', lambda: 2 * 7 * each)
    data = read_calibration(episodes_folder, checkpoint, 4, 0, 2, refine_frames=12)
    assert data.refinement is not None and len(data.refinement) == 12
    with pytest.raises(HbvlaError, match=r'^the images of 15 frames take .* GB .*; take fewer$'):
        read_calibration(episodes_folder, checkpoint, 4, 0, 3, refine_frames=12)


def test_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'meminfo'
    path.write_text('MemTotal:  100 kB\nMemAvailable:   42 kB\n')
    monkeypatch.setattr(memory, '_MEMORY_FILE', path)
    assert available_bytes() == 42 * 1024
    path.unlink()
    assert available_bytes() is None
