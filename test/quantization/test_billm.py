# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.quantization.binary.blocks import quantize_blocks
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods import billm
from hbvla_ros.quantization.methods.billm import BillmOptions
from hbvla_ros.quantization.options import with_settings
from hbvla_ros.quantization.registry import find_method
from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer, output_error

VARIANTS = [
    BillmOptions(),
    BillmOptions(salient_metric='magnitude'),
    BillmOptions(salient_norm='l2', feedback='exact', candidates=2, block_size=27),
]
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 5), (1, 300), (7, 129), (16, 176), (5, 128), (10, 257)]


def random_weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def random_hessian(columns: int) -> Tensor:
    inputs = random_weight(400, columns, 7) * torch.linspace(10, 100, columns)
    return inputs.T @ inputs / 400


@pytest.fixture(scope='module')
def attention() -> SyntheticLayer:
    return make_layer('attn_vo', 384, 384, seed=1, tokens=3000)


@pytest.mark.parametrize('options', VARIANTS, ids=str)
@pytest.mark.parametrize('calibrated', [True, False])
def test_any_shape(options: BillmOptions, calibrated: bool) -> None:
    for shape in SHAPES:
        weight = random_weight(*shape)
        hessian = random_hessian(shape[1]) if calibrated else None
        layer = billm.quantize(weight, hessian, options)
        layer.check('layer')
        rebuilt = layer.reconstruct()
        assert rebuilt.shape == weight.shape and bool(torch.isfinite(rebuilt).all())
        assert relative_error(weight, rebuilt, hessian) < 0.6
        inputs = random_weight(3, shape[1], 5)
        torch.testing.assert_close(layer.apply(inputs), inputs @ rebuilt.T, rtol=1e-4, atol=1e-6)
        again = layer_from_parts('layer', layer.form, layer.options(), layer.tensors())
        assert torch.equal(again.reconstruct(), rebuilt)


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_the_stored_layer_is_what_was_fed_back(
    options: BillmOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed = []

    def spy(*arguments: object) -> object:
        result = quantize_blocks(*arguments)
        believed.append(result[0])
        return result

    monkeypatch.setattr(billm, 'quantize_blocks', spy)
    layer = billm.quantize(random_weight(37, 331), random_hessian(331), options)
    difference = layer.reconstruct() - believed[0]
    assert float(difference.norm() / believed[0].norm()) < 1e-5


def test_what_is_stored_and_nothing_else() -> None:
    layer = billm.quantize(random_weight(64, 512), random_hessian(512), BillmOptions())
    assert isinstance(layer, GroupedLayer) and layer.parts.keys() == {'base', 'salient'}
    base, salient = layer.parts['base'], layer.parts['salient']
    assert base.products == (0, 1, 2, 3) and salient.products == (0, 1, 2)
    assert base.permutation is not None and salient.permutation is not None
    columns = torch.cat((base.permutation, salient.permutation)).sort().values
    assert columns.tolist() == list(range(512))
    count = len(salient.permutation)
    planes = 2 * 64 * ((512 - count + 7) // 8 + (count + 7) // 8)
    assert layer.stored_bytes() == planes + 2 * 64 * 7 * 4 + 2 * (512 + 2 * 4)
    assert layer.nominal_bits == pytest.approx(1 + count / 512)


def test_bits_on_a_wide_layer() -> None:
    """Spec 3.2 counts 2.94 to 3.06; salient columns without a bitmap bit save their share."""
    layer = billm.quantize(random_weight(1024, 1024), None, BillmOptions())
    assert 2.85 < 8 * layer.stored_bytes() / layer.weights < 3.06


def test_errors_of_the_spec(attention: SyntheticLayer) -> None:
    """Table of spec section 6, attn_vo: 0.192."""
    layer = billm.quantize(attention.weight, attention.calibration, BillmOptions())
    assert 0.15 < output_error(attention, layer.reconstruct()) < 0.24


def test_levels_are_those_of_two_groups_of_order_one_and_of_two_planes() -> None:
    """One block without feedback: at most four levels a row in either part."""
    weight = random_weight(12, 128)
    layer = billm.quantize(weight, None, BillmOptions())
    rebuilt = layer.reconstruct()
    salient = layer.parts['salient'].permutation.long()
    others = layer.parts['base'].permutation.long()
    for columns in (salient, others):
        assert all(len(row.unique()) <= 4 for row in rebuilt[:, columns])
    rows = rebuilt[:, salient]
    assert relative_error(weight[:, salient], rows) < relative_error(
        weight[:, others], rebuilt[:, others]
    )


def test_salience_by_weights_ignores_the_inputs() -> None:
    weight, hessian = random_weight(24, 128), random_hessian(128)
    options = BillmOptions(salient_metric='magnitude')
    first = billm.quantize(weight, None, options)
    second = billm.quantize(weight, hessian, options)
    assert torch.equal(first.parts['salient'].permutation, second.parts['salient'].permutation)
    other = billm.quantize(weight, hessian, BillmOptions())
    chosen = other.parts['salient'].permutation.float()
    assert float(chosen.mean()) > 100  # where the inputs are large


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_dead_inputs_constant_rows_and_zero_weights(options: BillmOptions) -> None:
    weight = random_weight(8, 300)
    weight[2], weight[3] = 0.7, 0.0
    weight[:, 130] = 1e4
    hessian = random_hessian(300)
    hessian[130, :] = hessian[:, 130] = 0.0
    rebuilt = billm.quantize(weight, hessian, options).reconstruct()
    assert bool(torch.isfinite(rebuilt).all())
    assert relative_error(weight, rebuilt, hessian) < 0.4
    assert not billm.quantize(torch.zeros(4, 140), None, options).reconstruct().any()
    dead = billm.quantize(random_weight(4, 140), torch.zeros(140, 140), options)
    assert not dead.reconstruct().any()


def test_same_bytes_every_time() -> None:
    weight, hessian = random_weight(32, 256), random_hessian(256)
    first, second = (billm.quantize(weight, hessian, BillmOptions()).tensors() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_options_are_settable_and_checked() -> None:
    method = find_method('billm')
    changed = with_settings(method.preset('default'), ['salient_metric=magnitude'], 'billm')
    assert changed == BillmOptions(salient_metric='magnitude')
    with pytest.raises(HbvlaError, match='block_size=0: use 1 or more'):
        with_settings(BillmOptions(), ['block_size=0'], 'billm')
