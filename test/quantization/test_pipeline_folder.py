# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What stands in the folder that the pipeline writes: layers, manifest, its action error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hbvla_ros.packed.accounting import packed_report
from hbvla_ros.packed.install import install_folder
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.quantization.targets import COMPONENTS
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty
from hbvla_ros.vla.platform import PLATFORMS, resolve_platform
from hbvla_ros.vla.tokens import complete_ids

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'
# Enough for what is tested here, and several times faster than the default.
FAST = SignPlaneOptions(rounds=1, cycles=0)


def open_checkpoint(folder: Path, platform: str | None = None) -> Checkpoint:
    return Checkpoint.open(folder, resolve_platform(folder, platform))


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
