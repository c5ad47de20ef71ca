# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import (
    folder_bytes,
    nominal_bits_per_weight,
    packed_report,
    stored_bits_per_weight,
)
from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.headers import read_header
from hbvla_ros.packed.install import install_folder
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.linear import RESIDENCIES, PackedLinear
from hbvla_ros.packed.manifest import LayerEntry, Manifest
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.packed.writer import write_folder

LAYER = 'language_model.model.layers.0.mlp'


class Toy(nn.Module):
    """A network with the names of the real one, as far as it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.projector = nn.ModuleDict({'fc1': nn.Linear(24, 24)})
        mlp = nn.ModuleDict({'up': nn.Linear(24, 40), 'down': nn.Linear(40, 24, bias=False)})
        self.language_model = nn.Module()
        self.language_model.model = nn.Module()
        self.language_model.model.layers = nn.ModuleList([nn.ModuleDict({'mlp': mlp})])


def write_toy(out: Path, force: bool = False) -> Manifest:
    torch.manual_seed(0)
    layers = {}
    for name, rows, columns in (('up', 40, 24), ('down', 24, 40)):
        signs = pack_signs(torch.randn(1, rows, columns))
        scale, column_scale = torch.rand(1, rows).half(), torch.rand(columns).half()
        layers[f'{LAYER}.{name}'] = SignPlaneLayer.uniform(columns, signs, scale, 16, column_scale)
    state = Toy().state_dict()
    tensors = {k: v for k, v in state.items() if k.removesuffix('.weight') not in layers}
    entries = {name: LayerEntry.of(x, 0.3) for name, x in layers.items()}
    manifest = Manifest(
        stored_bits_per_weight(layers.values()), 1.0, 1.0, 'signplane', {}, 0, None,
        {'name': 'toy', 'bytes': 12345, 'files': {}}, entries,
    )  # fmt: skip
    return write_folder(out, manifest, layers, tensors, [], {'config.json': '{}\n'}, force)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy(tmp_path / 'deployed')
    return tmp_path / 'deployed'


def test_round_trip_into_a_network(folder: Path) -> None:
    opened = PackedFolder.open(folder)
    assert set(opened.layers) == {f'{LAYER}.up', f'{LAYER}.down'}
    assert opened.names() == [f'{LAYER}.up.bias', 'projector.fc1.bias', 'projector.fc1.weight']
    with torch.device('meta'):
        network = Toy()
    install_folder(network, opened, 'packed')
    up = network.get_submodule(f'{LAYER}.up')
    assert isinstance(up, PackedLinear)
    inputs = torch.randn(3, 24)
    expected = inputs @ opened.layers[f'{LAYER}.up'].reconstruct().T
    expected = expected + opened.tensor(f'{LAYER}.up.bias').float()
    torch.testing.assert_close(up(inputs), expected, rtol=1e-5, atol=1e-5)
    assert not any(tensor.is_meta for tensor in network.state_dict().values())


class Linears(nn.Module):
    """One linear layer a quantized layer, with the shapes of these."""

    def __init__(self, layers: Mapping[str, QuantizedLayer]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {name.rpartition('.')[2]: nn.Linear(x.columns, x.rows) for name, x in layers.items()}
        )


@pytest.fixture
def all_forms(make: Any) -> dict[str, QuantizedLayer]:
    """Layers of every form and kind by module name."""
    return {
        'blocks.planes': make.sign_planes(130, 72, planes=2, permuted=True),
        'blocks.tiles': make.sign_planes(300, 100, planes=3, tiled=True, seed=2),
        'blocks.log': make.sign_planes(40, 33, log=True),
        'blocks.factors': make.factored(70, 96, 24, hadamard=16, permuted=True),
        'blocks.log_factors': make.factored(33, 31, 17, log=True),
        'blocks.groups': make.grouped(131, 77, seed=1, parts=2),
        'blocks.panel': make.grouped(64, 130, seed=5, parts=3, panel=6),
    }


def write_layers(out: Path, layers: Mapping[str, QuantizedLayer]) -> Manifest:
    biases = {f'{name}.bias': torch.linspace(-1, 1, x.rows) for name, x in layers.items()}
    manifest = Manifest(
        stored_bits_per_weight(layers.values()), nominal_bits_per_weight(layers.values()), 1.0,
        'mixed', {}, 0, None, {'name': 'toy', 'bytes': 12345, 'files': {}},
        {name: LayerEntry.of(x, 0.3) for name, x in layers.items()},
    )  # fmt: skip
    return write_folder(out, manifest, layers, biases, [])


@pytest.mark.parametrize('residency', RESIDENCIES)
def test_every_form_survives_the_way_through_a_folder(
    all_forms: dict[str, QuantizedLayer], tmp_path: Path, residency: str
) -> None:
    write_layers(tmp_path / 'deployed', all_forms)
    opened = PackedFolder.open(tmp_path / 'deployed')
    with torch.device('meta'):
        network = Linears(all_forms)
    install_folder(network, opened, residency)
    for name, layer in all_forms.items():
        stored = opened.layers[name]
        assert stored.form == layer.form and stored.options() == layer.options()
        assert torch.equal(stored.reconstruct(), layer.reconstruct())
        inputs = torch.randn(5, layer.columns, generator=torch.Generator().manual_seed(0))
        # Biases are unquantized tensors, stored as bfloat16.
        bias = torch.linspace(-1, 1, layer.rows).bfloat16().float()
        wanted = inputs @ layer.reconstruct().T + bias
        found = network.get_submodule(name)(inputs)
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_stored_bits_of_every_form_are_the_bytes_in_the_file(
    all_forms: dict[str, QuantizedLayer], tmp_path: Path
) -> None:
    manifest = write_layers(tmp_path / 'deployed', all_forms)
    header = read_header(tmp_path / 'deployed' / 'model.safetensors')
    on_disk = {
        name: sum(e.size for n, e in header.items() if n.startswith(f'{name}.') and 'bias' not in n)
        for name in all_forms
    }
    assert {name: layer.stored_bytes() for name, layer in all_forms.items()} == on_disk
    assert {name: entry.bytes for name, entry in manifest.layers.items()} == on_disk
    bits = 8 * sum(on_disk.values()) / sum(x.rows * x.columns for x in all_forms.values())
    assert manifest.stored_bits_per_weight == pytest.approx(bits, rel=1e-3)
    report = packed_report(PackedFolder.open(tmp_path / 'deployed'))
    assert report.stored_bits_per_weight == pytest.approx(bits, rel=1e-9)
    assert {row.name: row.quantized_bytes for row in report.layer_types} == {
        name.rpartition('.')[2]: size for name, size in on_disk.items()
    }


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ('a', 'b'):
        write_toy(tmp_path / name)
    for file in ('model.safetensors', 'hbvla.json', 'config.json'):
        assert (tmp_path / 'a' / file).read_bytes() == (tmp_path / 'b' / file).read_bytes()


def test_files_are_as_readable_as_any_other(folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'plain').write_text('')
    modes = {path.stat().st_mode for path in [*folder.iterdir(), tmp_path / 'plain']}
    assert len(modes) == 1


def test_stored_bits_are_the_bytes_in_the_file(folder: Path) -> None:
    header = read_header(folder / 'model.safetensors')
    size = sum(e.size for n, e in header.items() if n.startswith(LAYER) and not n.endswith('bias'))
    bits = 8 * size / (2 * 24 * 40)
    manifest = PackedFolder.open(folder).manifest
    assert manifest.stored_bits_per_weight == pytest.approx(bits, rel=1e-3)
    report = packed_report(PackedFolder.open(folder))
    assert report.stored_bits_per_weight == pytest.approx(bits, rel=1e-6)
    assert nominal_bits_per_weight(manifest.layers.values()) == report.nominal_bits_per_weight == 1


def test_total_bytes_are_those_of_du(folder: Path) -> None:
    listing = subprocess.run(
        ['du', '-ab', '--apparent-size', folder], capture_output=True, text=True, check=True
    )
    files = [line.split('\t') for line in listing.stdout.splitlines()]
    expected = sum(int(size) for size, path in files if Path(path).is_file())
    report = packed_report(PackedFolder.open(folder))
    assert report.total_bytes == folder_bytes(folder) == expected
    assert sum(row.bytes for row in report.components) == expected


def damage(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_damaged_tensor_is_named(folder: Path) -> None:
    path = folder / 'model.safetensors'
    damage(path, read_header(path)[f'{LAYER}.down.planes'].begin + 3)
    with pytest.raises(
        HbvlaError, match=rf'model\.safetensors: digest differs in tensor {LAYER}.down.planes'
    ):
        PackedFolder.open(folder)


def test_damaged_small_file_is_named(folder: Path) -> None:
    damage(folder / 'config.json', 0)
    with pytest.raises(HbvlaError, match=r'config\.json: digest differs'):
        PackedFolder.open(folder)


def test_truncated_and_missing_files_are_named(folder: Path) -> None:
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(HbvlaError, match=r'model\.safetensors: truncated, \d+ bytes of \d+'):
        PackedFolder.open(folder)
    path.unlink()
    with pytest.raises(HbvlaError, match=r'model\.safetensors: missing'):
        PackedFolder.open(folder)


def test_other_versions_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    manifest = folder / 'hbvla.json'
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, 'format_version': 7}))
    with pytest.raises(HbvlaError, match='format version 7, this release reads 2'):
        PackedFolder.open(folder)
    manifest.write_text(json.dumps({**content, 'format_version': 1}))
    with pytest.raises(HbvlaError, match='version 1, this release reads 2; quantize the .* again'):
        PackedFolder.open(folder)
    manifest.write_text('{"format_version": 2}')
    with pytest.raises(HbvlaError, match='damaged manifest'):
        PackedFolder.open(folder)
    manifest.write_text('not json')
    with pytest.raises(HbvlaError, match='not a readable manifest'):
        PackedFolder.open(folder)
    with pytest.raises(HbvlaError, match=r'no hbvla\.json in it'):
        PackedFolder.open(tmp_path)
    with pytest.raises(HbvlaError, match='no such folder'):
        PackedFolder.open(tmp_path / 'absent')


def test_network_of_another_shape_is_refused(folder: Path) -> None:
    network = Toy()
    network.language_model.model.layers[0]['mlp']['up'] = nn.Linear(24, 41)
    with pytest.raises(HbvlaError, match='up: the network has 41 x 24, the deployed .* 40 x 24'):
        install_folder(network, PackedFolder.open(folder))


def test_missing_and_surplus_tensors_are_named(folder: Path) -> None:
    network = Toy()
    network.projector['fc2'] = nn.Linear(2, 2)
    with pytest.raises(HbvlaError, match=r'no tensor projector\.fc2\.'):
        install_folder(network, PackedFolder.open(folder))
    network = Toy()
    del network.projector['fc1']
    with pytest.raises(HbvlaError, match=r'projector\.fc1\.bias has no place'):
        install_folder(network, PackedFolder.open(folder))


def forge(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / 'hbvla.json'
    content = json.loads(path.read_text())
    change(content['layers'][f'{LAYER}.up'])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('rows', '40'), ('rows', 0), ('columns', None), ('bytes', 1.5), ('form', ['sign_planes']),
        ('form_options', [1]), ('parts', [3]), ('parts', 3), ('relative_error', 'small'),
        ('wheels', 4),
    ],
)  # fmt: skip
def test_manifest_with_values_of_wrong_types_is_refused(
    folder: Path, key: str, value: object
) -> None:
    forge(folder, lambda entry: entry.update({key: value}))
    with pytest.raises(HbvlaError, match=r'hbvla\.json: damaged manifest \(.*; copy the folder'):
        PackedFolder.open(folder)


def test_manifest_and_tensors_that_disagree_are_refused(folder: Path) -> None:
    forge(folder, lambda entry: entry['parts'].append('tile_planes'))
    with pytest.raises(HbvlaError, match=rf'no tensor {LAYER}\.up\.tile_planes'):
        PackedFolder.open(folder)
    forge(folder, lambda entry: entry['parts'].remove('tile_planes'))
    forge(folder, lambda entry: entry.update(bytes=7))
    with pytest.raises(HbvlaError, match=rf'{LAYER}\.up has other sizes than the manifest says'):
        PackedFolder.open(folder)
    size = 40 * 3 + 40 * 2 + 24 * 2
    for change, message in (
        ({'rows': 41, 'bytes': size}, 'the manifest says 41 x 24, its tensors 40 x 24'),
        ({'rows': 40, 'form': 'spline'}, "form 'spline' is unknown"),
        ({'form': 'sign_planes', 'form_options': {}}, 'no option columns'),
    ):
        forge(folder, lambda entry, change=change: entry.update(change))
        with pytest.raises(HbvlaError, match=rf'{LAYER}\.up: .*{message}'):
            install_folder(Toy(), PackedFolder.open(folder))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damaged_byte_of_the_tensor_file_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp('damage') / 'deployed'
    write_toy(folder)
    path = folder / 'model.safetensors'
    header = int.from_bytes(path.read_bytes()[:8], 'little') + 8
    # Half of the damage hits the header, which is parsed to name the tensor.
    last = data.draw(st.sampled_from([header, path.stat().st_size])) - 1
    place = data.draw(st.integers(0, last))
    content = bytearray(path.read_bytes())
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(HbvlaError, match=r'model\.safetensors: ') as caught:
        PackedFolder.open(folder)
    assert '\n' not in str(caught.value)
    try:  # what the digest would have caught is refused or harmless without it
        PackedFolder.open(folder, verify=False)
    except HbvlaError as error:
        assert '\n' not in str(error)
