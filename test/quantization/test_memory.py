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


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))


def test_needed_bytes_of_a_network_that_can_be_counted(
    checkpoint: Checkpoint, episodes_folder: Path
) -> None:
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    parameters = 4 * sum(parameter.numel() for parameter in skeleton.parameters())
    few = read_calibration(episodes_folder, checkpoint, 8, 0)
    many = read_calibration(episodes_folder, checkpoint, 16, 0)
    plain, probing = needed_bytes(skeleton, few)
    # Two cameras of four patches, proprioception, words, 6 action slots, stop; four bytes each.
    batch = max(few.batches, key=lambda one: len(one.pixel_values))
    tokens = len(batch.pixel_values) * (1 + 8 + 1 + batch.input_ids.shape[1] - 1 + 6 + 1)
    language = 4 * tokens * 2 * (32 + 2 * 16 + 32 + 2 * 48 + 32)
    assert probing > parameters + 3 * language
    # Twice the frames: twice the inputs of the decoder's first block and nothing else.
    assert needed_bytes(skeleton, many)[0] - plain == pytest.approx(
        2 * 8 * 4 * 32 * tokens / len(batch.pixel_values), rel=0.1
    )


def test_too_little_memory_is_refused_before_anything_is_loaded(
    checkpoint: Checkpoint, episodes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeleton = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
    calibration = read_calibration(episodes_folder, checkpoint, 4, 0)
    plain, probing = needed_bytes(skeleton, calibration)
    assert plain < probing
    for available, probe, way_out in (
        (plain, 'action', 'add --probe none'),
        (plain - 1, 'action', 'leave out --calibration'),
        (plain - 1, 'none', 'leave out --calibration'),
    ):
        monkeypatch.setattr(memory, 'available_bytes', lambda available=available: available)
        with pytest.raises(HbvlaError, match=f'needs about .* GB of memory, .*; {way_out}$'):
            quantize_checkpoint(checkpoint, Request(probe=probe), tmp_path / 'out', calibration)
    monkeypatch.setattr(memory, 'available_bytes', lambda: plain)
    check_memory(skeleton, calibration, probe=False)
    monkeypatch.setattr(memory, 'available_bytes', lambda: None)
    check_memory(skeleton, calibration, probe=True)


def test_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'meminfo'
    path.write_text('MemTotal:  100 kB\nMemAvailable:   42 kB\n')
    monkeypatch.setattr(memory, '_MEMORY_FILE', path)
    assert available_bytes() == 42 * 1024
    path.unlink()
    assert available_bytes() is None
