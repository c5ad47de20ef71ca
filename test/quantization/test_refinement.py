# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbvla_ros.packed.install import replace_linear
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.calibration_frames import Frame
from hbvla_ros.quantization.frame_store import FrameStore
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.refinable import (
    RefinableLinear,
    float_scales,
    with_float_scales,
    with_stored_scales,
)
from hbvla_ros.quantization.refinement import Refined, refine
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.targets import quantized_linears
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

OPTIONS: dict[str, dict[str, Any]] = {'dbf': {'width': 24}}
FORMS = ('rtn', 'signplane', 'dbf', 'hbllm', 'hbvla', 'bivlm')


def quantized(method: str, weight: torch.Tensor) -> QuantizedLayer:
    options = dataclasses.replace(METHODS[method].presets['default'], **OPTIONS.get(method, {}))
    return METHODS[method].quantize(weight, None, options)


def random_weight(rows: int = 64, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize('method', FORMS)
def test_scales_of_every_form_can_be_taken_out_and_put_back(method: str) -> None:
    layer = quantized(method, random_weight())
    scales = float_scales(layer)
    weight = layer.reconstruct()
    torch.testing.assert_close(with_float_scales(layer, scales).reconstruct(), weight)
    stored = with_stored_scales(layer, scales)
    torch.testing.assert_close(stored.reconstruct(), weight, rtol=2e-2, atol=2e-2)
    assert stored.stored_bytes() == layer.stored_bytes()
    assert stored.options() == layer.options()


@pytest.mark.parametrize('method', FORMS)
def test_every_scale_has_a_gradient_and_no_sign_moves(method: str) -> None:
    layer = quantized(method, random_weight())
    module = RefinableLinear(layer, torch.zeros(64))
    inputs = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(inputs), layer.apply(inputs), rtol=1e-4, atol=1e-4)
    module(inputs).square().sum().backward()
    for name, scale in module.scales.items():
        assert scale.grad is not None and float(scale.grad.abs().sum()) > 0, name
    before, after = layer.tensors(), module.stored().tensors()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if tensor.dtype == torch.uint8 and 'scale' not in name:
            assert torch.equal(tensor, after[name]), name


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint, None))


@pytest.fixture
def store(checkpoint: Checkpoint) -> FrameStore:
    generator = np.random.default_rng(4)
    platform = checkpoint.platform
    pipeline = ImagePipeline(
        platform, Preprocessor.read(checkpoint.place_of('preprocessor_config.json'))
    )
    made = FrameStore(pipeline.normalise)
    for number in range(24):
        images = {
            camera: generator.integers(0, 256, (*checkpoint.config.image_size, 3), dtype=np.uint8)
            for camera in platform.cameras
        }
        # Prompts of two lengths.
        ids = generator.integers(4, 20, 6 + number % 2).tolist()
        proprio = generator.normal(size=platform.proprio_dim) if platform.proprio_dim else None
        frame = Frame((0, number), np.empty(0, np.float32), ids, proprio, '', images)
        made.add([frame])
    return made


@pytest.fixture
def batches(store: FrameStore) -> list[NetworkInputs]:
    groups = [[row for row, length in enumerate(store.lengths) if length == n] for n in (6, 7)]
    return [store.inputs(group) for group in groups]


def actions(network: OpenVLANetwork, batches: list[NetworkInputs]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network(*batch.arguments()) for batch in batches])


def installed(checkpoint: Checkpoint, refined: Refined) -> OpenVLANetwork:
    network = checkpoint.load_network(torch.float32)
    for name, layer in refined.layers.items():
        replace_linear(network, name, layer, 'packed', torch.float32)
    network.load_state_dict(refined.tensors, strict=False)
    return network


@pytest.mark.parametrize('method', ['rtn', 'signplane'])
def test_the_actions_come_closer_to_full_precision(
    checkpoint: Checkpoint, store: FrameStore, batches: list[NetworkInputs], method: str
) -> None:
    wanted = actions(checkpoint.load_network(torch.float32), batches)
    network = checkpoint.load_network(torch.float32)
    layers = {
        name: quantized(method, network.get_parameter(f'{name}.weight').detach())
        for name in quantized_linears(network)
    }
    before = actions(installed(checkpoint, Refined(layers, {})), batches)
    steps: list[int] = []
    refined = refine(network, layers, store, 50, 0, lambda: steps.append(1))
    after = actions(installed(checkpoint, refined), batches)
    assert len(steps) == 50 and refined.layers.keys() == layers.keys()
    for part in ('norm', 'projector', 'action_head', 'embed_tokens'):
        assert any(part in name for name in refined.tensors), part
    assert (after - wanted).norm() < 0.85 * (before - wanted).norm()
    again = refine(checkpoint.load_network(torch.float32), layers, store, 50, 0)
    assert all(torch.equal(again.tensors[n], tensor) for n, tensor in refined.tensors.items())
