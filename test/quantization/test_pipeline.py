# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.linear import PackedLinear
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.policy import Policy
from hbvla_ros.quantization import memory
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods import rtn
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.targets import quantized_linears
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

# Enough for what is tested here, and several times faster than the default.
FAST = SignPlaneOptions(rounds=1, cycles=0)


def open_checkpoint(folder: Path, platform: str | None = None) -> Checkpoint:
    return Checkpoint.open(folder, resolve_platform(folder, platform))


def action_error(network: OpenVLANetwork, reference: OpenVLANetwork, data: CalibrationSet) -> float:
    """Relative root mean square difference of the actions."""
    difference, size = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for batch in data.batches:
            wanted = reference(*batch.arguments())
            difference += (network(*batch.arguments()) - wanted).square().sum()
            size += wanted.square().sum()
    return float((difference / size).sqrt())


def test_deployed_folder_computes_what_the_quantizer_reconstructed(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    quantize_checkpoint(checkpoint, Request(bits=2, options=FAST), tmp_path / 'out')
    packed = PackedFolder.open(tmp_path / 'out')
    expected = checkpoint.load_network(torch.bfloat16).float()
    for name, layer in packed.layers.items():
        expected.get_submodule(name).weight.data = layer.reconstruct()
    data = read_calibration(episodes_folder, checkpoint, 8, 0)
    for residency in ('packed', 'bf16'):
        network = Policy.load(tmp_path / 'out', residency=residency).network
        assert isinstance(network.get_submodule(next(iter(packed.layers))), PackedLinear)
        assert action_error(network, expected, data) < 1e-5


def test_calibration_lowers_the_action_error(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    reference = checkpoint.load_network()
    data = read_calibration(episodes_folder, checkpoint, 40, 0)
    held_out = read_calibration(episodes_folder, checkpoint, 48, 1)

    def error(request: Request, calibration: CalibrationSet | None) -> float:
        quantize_checkpoint(checkpoint, request, tmp_path / 'out', calibration, force=True)
        network = Policy.load(tmp_path / 'out').network
        return action_error(network, reference, held_out)

    plain = error(Request(bits=2, options=FAST), None)
    assert error(Request(bits=2, probe='none', options=FAST), data) < 0.7 * plain
    assert error(Request(bits=2, probe='action', options=FAST), data) < 0.7 * plain


def test_same_seed_same_bytes_and_the_seed_draws_the_frames(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        data = read_calibration(episodes_folder, checkpoint, 10, seed)
        quantize_checkpoint(checkpoint, Request(seed=seed, options=FAST), tmp_path / name, data)
    for path in (tmp_path / 'a').iterdir():
        assert path.read_bytes() == (tmp_path / 'b' / path.name).read_bytes(), path.name
    weights = [(tmp_path / name / 'model.safetensors').read_bytes() for name in 'ac']
    assert weights[0] != weights[1]


@pytest.mark.parametrize('calibrated', [False, True])
def test_layers_share_a_budget(
    calibrated: bool, tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 10, 0) if calibrated else None
    request = Request(bits=3.0001, options=FAST)
    manifest = quantize_checkpoint(checkpoint, request, tmp_path / 'out', data).manifest
    assert 2.7 < manifest.stored_bits_per_weight <= 3.0001
    planes = {entry.nominal_bits for entry in manifest.layers.values()}
    assert len(planes) > 1
    # What differs from the options of the whole stands with the layer.
    for entry in manifest.layers.values():
        assert entry.nominal_bits == entry.method_options.get('planes', manifest.options['planes'])


def test_discrete_actions_have_no_gradient(
    make_tiny_checkpoint, tmp_path: Path, episodes_folder: Path
) -> None:
    folder = make_tiny_checkpoint(
        config={'head': 'discrete'}, platform={'action_slots_per_step': None}
    )
    checkpoint = open_checkpoint(folder)
    data = read_calibration(episodes_folder, checkpoint, 4, 0)
    with pytest.raises(HbvlaError, match='add --probe none'):
        quantize_checkpoint(checkpoint, Request(options=FAST), tmp_path / 'out', data)
    manifest = quantize_checkpoint(
        checkpoint, Request(probe='none', options=FAST), tmp_path / 'out', data
    ).manifest
    assert 'language_model.lm_head.weight' in PackedFolder.open(tmp_path / 'out').names()
    assert manifest.calibration is not None and manifest.calibration['probe'] == 'none'


def test_methods_are_given_the_hessians_they_ask_for(
    tiny_checkpoint: Path,
    tmp_path: Path,
    episodes_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 8, 0)
    seen: list[tuple[Tensor, Tensor | None]] = []

    def quantize(weight: Tensor, hessian: Tensor, options: Any, **extra: Tensor) -> QuantizedLayer:
        seen.append((hessian, extra.get('saliency_hessian')))
        return rtn.quantize(weight, hessian, options)

    def run(two: bool, probe: str, settings: tuple[str, ...] = ()) -> list[Any]:
        method = dataclasses.replace(METHODS['rtn'], quantize=quantize, two_hessians=two)
        monkeypatch.setitem(METHODS, 'rtn', method)
        seen.clear()
        request = Request('rtn', probe=probe, probe_settings=('provisional=rtn', *settings))
        quantize_checkpoint(checkpoint, request, tmp_path / 'out', data, force=True)
        return list(seen)

    plain = run(True, 'none')
    both = run(True, 'block')
    rectified = run(False, 'block')
    assert len(plain) == len(both) == len(rectified) == 30
    assert all(saliency is None for _, saliency in plain + rectified)
    for (_, saliency), (alone, _) in zip(both, rectified, strict=True):
        assert saliency is not None and torch.equal(saliency, alone)
    # Before anything is quantized the plain Hessians agree.
    assert torch.equal(plain[0][0], both[0][0])
    assert not torch.equal(both[0][0], rectified[0][0])
    # The paper's probe is of the attention of the decoder alone.
    names = quantized_linears(build_empty(checkpoint.config, checkpoint.platform))
    parity = [n for n, (_, saliency) in zip(names, run(True, 'parity'), strict=True)
              if saliency is not None]  # fmt: skip
    assert parity == [n for n in names if 'self_attn' in n]


@pytest.mark.parametrize('calibrated', [False, True])
@pytest.mark.parametrize('method', METHODS)
def test_every_method_quantizes_narrow_and_odd_layers(
    method: str, calibrated: bool, tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    """Fourteen joints in, fourteen actions out, as the heads have them."""
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 8, 0) if calibrated else None
    # The share of a few weights that scales take is more than the usual budget.
    bits = 4.5 if method == 'dbf' else None
    request = Request(method, bits, components=('head',), probe='none')
    manifest = quantize_checkpoint(checkpoint, request, tmp_path / 'out', data).manifest
    assert manifest.layers['proprio_projector.fc1'].columns == 14
    assert manifest.layers['action_head.model.fc2'].rows == 14
    for name, layer in PackedFolder.open(tmp_path / 'out').layers.items():
        weight = checkpoint.tensor(f'{name}.weight').float()
        error = relative_error(weight, layer.reconstruct())
        assert error == pytest.approx(manifest.layers[name].relative_error, rel=1e-4)
        assert error < (1.5 if calibrated else 1)


def test_large_networks_are_probed_block_by_block_to_the_same_layers(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 8, 0)
    request = Request(bits=3.0001, options=FAST)
    whole = quantize_checkpoint(checkpoint, request, tmp_path / 'whole', data).manifest
    monkeypatch.setattr(memory, 'WHOLE_NETWORK_PARAMETERS', 0)
    request = dataclasses.replace(request, cache_bytes=0)
    streamed = quantize_checkpoint(checkpoint, request, tmp_path / 'streamed', data).manifest
    for name, entry in whole.layers.items():
        assert streamed.layers[name].method_options == entry.method_options
        # Rounding may turn a sign that is a close call.
        assert streamed.layers[name].hessian_error == pytest.approx(entry.hessian_error, rel=0.02)
