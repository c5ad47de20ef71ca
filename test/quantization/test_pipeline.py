# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import packed_report
from hbvla_ros.packed.install import install_folder
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
from hbvla_ros.quantization.targets import COMPONENTS, quantized_linears
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import PLATFORMS, resolve_platform
from hbvla_ros.vla.tokens import complete_ids

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'
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


def test_every_block_that_runs_is_quantized_and_nothing_else(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    manifest = quantize_checkpoint(
        open_checkpoint(tiny_checkpoint), Request('rtn'), tmp_path / 'out'
    ).manifest
    towers = [
        f'vision_backbone.{tower}.blocks.{block}.{part}'
        for tower in ('featurizer', 'fused_featurizer')
        for block in (0, 1)
        for part in ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
    ]
    parts = [f'self_attn.{p}_proj' for p in 'qkvo'] + [
        f'mlp.{p}_proj' for p in ('gate', 'up', 'down')
    ]
    decoder = [f'language_model.model.layers.{i}.{part}' for i in (0, 1) for part in parts]
    assert list(manifest.layers) == towers + decoder
    names = PackedFolder.open(tmp_path / 'out').names()
    unused = ('blocks.2.', 'attn_pool', 'lm_head', 'featurizer.norm.')
    assert not [name for name in names if any(part in name for part in unused)]
    assert 'action_head.model.fc1.weight' in names and 'projector.fc1.weight' in names


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


def test_manifest_tells_where_everything_came_from(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 10, 0)
    quantize_checkpoint(checkpoint, Request(options=FAST), tmp_path / 'out', data)
    content = json.loads((tmp_path / 'out' / 'hbvla.json').read_text())
    assert list(content)[:3] == [
        'format_version',
        'stored_bits_per_weight',
        'nominal_bits_per_weight',
    ]
    assert content['method'] == 'signplane' and content['bits_asked'] is None
    assert content['preset'] == 'default' and content['components'] == ['vision', 'language']
    assert content['calibration'].items() >= {'frames': 10, 'seed': 0, 'probe': 'action'}.items()
    assert len(content['calibration']['digest']) == 64
    assert content['calibration']['probe_options']['power'] == 2
    source = {path.name: path.stat().st_size for path in tiny_checkpoint.iterdir()}
    assert {k: v['size'] for k, v in content['source']['files'].items()} == source
    assert content['source']['bytes'] == sum(source.values())
    layer = content['layers']['language_model.model.layers.1.mlp.down_proj']
    assert (layer['rows'], layer['columns'], layer['nominal_bits']) == (32, 48, 1)
    assert layer['bytes'] == FAST.stored_bytes(32, 48, [1]) and layer['method_options'] == {}
    assert 0 < layer['hessian_error'] < layer['relative_error'] < 1
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    assert set(content['files']) == written - {'hbvla.json'}
    assert {'config.json', 'tokenizer.json', 'platform.json', 'dataset_statistics.json'} < written
    assert str(tmp_path) not in json.dumps(content)


@pytest.mark.parametrize(
    ('name', 'platform'),
    [
        ('aloha_film_l1', 'aloha'),
        ('aloha_l1', 'aloha'),
        ('libero_diffusion', 'libero'),
        ('libero_film_l1', 'libero'),
        ('libero_l1', 'libero'),
    ],
)
def test_real_layouts_quantize(name: str, platform: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(GOLDEN / name, PLATFORMS[platform])
    manifest = quantize_checkpoint(checkpoint, Request('rtn', 3), tmp_path / 'out').manifest
    assert manifest.nominal_bits_per_weight == 3
    report = packed_report(PackedFolder.open(tmp_path / 'out'))
    assert report.stored_bits_per_weight == pytest.approx(manifest.stored_bits_per_weight, rel=1e-3)
    assert all(entry.relative_error < 0.1 for entry in manifest.layers.values())
    assert not any('.scale' in layer or '.shift' in layer for layer in manifest.layers)
    network = build_empty(checkpoint.config, checkpoint.platform)
    packed = PackedFolder.open(tmp_path / 'out')
    install_folder(network, packed, 'packed')
    expected = checkpoint.load_network(torch.bfloat16).float()
    for layer_name, layer in packed.layers.items():
        expected.get_submodule(layer_name).weight.data = layer.reconstruct()
    with np.load(GOLDEN / name / 'inputs.npz') as arrays:
        pixels = torch.from_numpy(arrays['pixel_values'])
        ids = complete_ids(arrays['input_ids'][0].tolist(), 1, checkpoint.config.empty_token_id)
        proprio = torch.from_numpy(arrays['proprio_normalized']).float()[None]
        noise = torch.from_numpy(arrays['noise']) if 'noise' in arrays else None
    arguments = (pixels, torch.tensor([ids]), proprio, noise)
    with torch.no_grad():
        torch.testing.assert_close(network(*arguments), expected(*arguments), rtol=1e-3, atol=1e-3)


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


@pytest.mark.parametrize(
    ('head', 'components'),
    [('l1', COMPONENTS), ('diffusion', COMPONENTS), ('l1', ('vision',)), ('l1', ('projector',))],
)
def test_the_reported_action_error_is_that_of_the_written_folder(
    head: str, components: tuple[str, ...], make_tiny_checkpoint, tmp_path: Path,
    episodes_folder: Path,
) -> None:  # fmt: skip
    slots = {'action_slots_per_step': None} if head == 'diffusion' else {}
    folder = make_tiny_checkpoint(
        config={'head': head}, platform={'diffusion_steps_inference': 2, **slots}
    )
    checkpoint = open_checkpoint(folder)
    data = read_calibration(episodes_folder, checkpoint, 8, 0, held_out=6)
    request = Request('rtn', 2, components=components, probe='block')
    result = quantize_checkpoint(checkpoint, request, tmp_path / 'out', data)
    assert set(result.components.values()) == set(components)
    network = Policy.load(tmp_path / 'out').network
    reference = checkpoint.load_network()
    with torch.no_grad():
        found, wanted = (
            torch.cat([one(*batch.arguments()) for batch in data.held_out])
            for one in (network, reference)
        )
    spread = (wanted - wanted.mean(dim=0)).square().mean().sqrt()
    relative = float((found - wanted).square().mean().sqrt() / spread)
    assert result.manifest.action_error is not None
    assert result.manifest.action_error['frames'] == 6
    # Unquantized tensors are stored in bfloat16.
    assert result.manifest.action_error['relative_rms'] == pytest.approx(relative, rel=0.02)
    assert relative > 0.01


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
