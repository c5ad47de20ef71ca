# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the pipeline refuses by a line that names it: requests, weights, calibration."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform


def open_checkpoint(folder: Path, platform: str | None = None) -> Checkpoint:
    return Checkpoint.open(folder, resolve_platform(folder, platform))


@pytest.mark.parametrize(
    ('request_', 'message'),
    [
        (Request(bits=0.9), 'takes 1.67. stored bits on this network; ask for --bits 1.67 or'),
        (Request(bits=float('nan')), 'must be a positive number of stored bits'),
        (Request('hbllm', 1), 'the size of hbllm is fixed by the method'),
        (Request('rtn', 1.1), 'rtn takes 1, 2 or 3'),
        (Request('nonsense'), "method 'nonsense' is unknown"),
        (Request(probe='other'), '--probe other'),
        (Request(seed=-1), 'seed -1: must be 0'),
        (Request(preset='other'), '--preset other: signplane has default'),
        (Request(settings=('rounds=x',)), '--set rounds=x: use a whole number'),
        (Request(probe_settings=('power=3',)), '--probe-set power=3: use one of 1, 2'),
        (Request(components=('arm',)), '--components arm: is unknown; use some of vision,'),
        (Request(device='nonsense'), '--device nonsense: cannot be used'),
        (Request(dtype='int8'), '--dtype int8: use one of float32, bfloat16'),
    ],
)
def test_impossible_requests_are_refused_before_any_work(
    request_: Request, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(HbvlaError, match=message):
        quantize_checkpoint(open_checkpoint(tiny_checkpoint), request_, tmp_path / 'out')
    assert not list(tmp_path.glob('out*'))


def _spoil(folder: Path, name: str, value: float) -> None:
    from safetensors.torch import load_file, save_file

    tensors: dict[str, Tensor] = load_file(folder / 'model.safetensors')
    tensors[name][0, 0] = value
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_named(
    value: float, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    name = 'language_model.model.layers.0.self_attn.v_proj.weight'
    _spoil(tiny_checkpoint, name, value)
    with pytest.raises(HbvlaError, match=f'{name}: holds NaN or infinity'):
        quantize_checkpoint(open_checkpoint(tiny_checkpoint), Request(), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_calibration_that_does_not_fit_is_refused(
    make_tiny_checkpoint, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(make_tiny_checkpoint())
    data = read_calibration(episodes_folder, checkpoint, 4, 0)
    diffusion = {
        'config': {'head': 'diffusion'},
        'platform': {'action_slots_per_step': None},
    }
    noise = torch.zeros(4, 7, 14)
    for other, changes, message in (
        ({'platform': {'cameras': ('cam_high',)}}, {}, 'frames of 2 cameras, but .* 1 .cam_high'),
        ({}, {'proprio': torch.zeros(4, 7)}, 'proprioception of 7 values, .* proprio_dim 14'),
        ({}, {'proprio': None}, 'proprioception of 0 values'),
        ({}, {'pixel_values': torch.zeros(4, 12, 48, 48)}, 'images of 48 x 48, .* takes 32 x 32'),
        (diffusion, {}, 'noise for chunks of None, but .* chunk 3'),
        (diffusion, {'noise': noise}, r'noise for chunks of \(7, 14\), but .* chunk 3'),
    ):  # fmt: skip
        network = open_checkpoint(make_tiny_checkpoint('other', **other))
        batches = [dataclasses.replace(batch, **changes) for batch in data.batches]
        wrong = dataclasses.replace(data, batches=batches)
        with pytest.raises(HbvlaError, match=f'^--calibration: {message}'):
            quantize_checkpoint(network, Request('rtn', probe='none'), tmp_path / 'out', wrong)
        shutil.rmtree(tmp_path / 'other')
    with pytest.raises(HbvlaError, match='--calibration: no usable frame'):
        empty = dataclasses.replace(data, batches=[])
        quantize_checkpoint(checkpoint, Request('rtn'), tmp_path / 'out', empty)


def test_methods_that_need_calibration_say_so(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = dataclasses.replace(METHODS['rtn'], needs_hessian=True)
    monkeypatch.setitem(METHODS, 'rtn', method)
    with pytest.raises(HbvlaError, match='--method rtn: needs --calibration'):
        quantize_checkpoint(open_checkpoint(tiny_checkpoint), Request('rtn'), tmp_path / 'out')


def test_layers_that_are_not_there_are_told(make_tiny_checkpoint, tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(
        config={'head': 'discrete'}, platform={'action_slots_per_step': None, 'proprio_dim': 0}
    )
    with pytest.raises(HbvlaError, match='--components head: this network has no such layers'):
        request = Request('rtn', components=('head',))
        quantize_checkpoint(open_checkpoint(folder), request, tmp_path / 'out')
