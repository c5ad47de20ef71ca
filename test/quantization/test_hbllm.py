# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.quantization.binary.blocks import quantize_blocks
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods import hbllm
from hbvla_ros.quantization.methods.hbllm import PRESETS, HbllmOptions
from hbvla_ros.quantization.options import with_settings
from hbvla_ros.quantization.registry import find_method
from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer, output_error

VARIANTS = [
    *PRESETS.values(),
    HbllmOptions(transform='col', partition='global', shared_mean=False),
    HbllmOptions(partition='global', scale='mean_abs', centred=True, salient_norm='l1'),
    HbllmOptions(feedback='exact', official_arithmetic=True),
]
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 5), (1, 300), (7, 129), (16, 176), (5, 128), (10, 257)]


def random_weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def random_hessian(columns: int) -> Tensor:
    inputs = random_weight(400, columns, 7) * torch.linspace(10, 100, columns)
    return inputs.T @ inputs / 400


def stored_bits(layer: GroupedLayer) -> float:
    return 8 * layer.stored_bytes() / layer.weights


@pytest.fixture(scope='module')
def attention() -> SyntheticLayer:
    return make_layer('attn_vo', 384, 384, seed=1, tokens=3000)


@pytest.mark.parametrize('options', VARIANTS, ids=str)
@pytest.mark.parametrize('calibrated', [True, False])
def test_any_shape(options: HbllmOptions, calibrated: bool) -> None:
    for shape in SHAPES:
        weight = random_weight(*shape)
        hessian = random_hessian(shape[1]) if calibrated else None
        layer = hbllm.quantize(weight, hessian, options)
        layer.check('layer')
        rebuilt = layer.reconstruct()
        assert rebuilt.shape == weight.shape and bool(torch.isfinite(rebuilt).all())
        assert relative_error(weight, rebuilt, hessian) < 0.35
        inputs = random_weight(3, shape[1], 5)
        torch.testing.assert_close(layer.apply(inputs), inputs @ rebuilt.T, rtol=1e-4, atol=1e-6)
        again = layer_from_parts('layer', layer.form, layer.options(), layer.tensors())
        assert torch.equal(again.reconstruct(), rebuilt)


@pytest.mark.parametrize('options', VARIANTS[:-1], ids=str)
@pytest.mark.parametrize('columns', [256, 331])
def test_the_stored_layer_is_what_was_fed_back(
    options: HbllmOptions, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed = []

    def spy(*arguments: object) -> object:
        result = quantize_blocks(*arguments)
        believed.append(result[0])
        return result

    monkeypatch.setattr(hbllm, 'quantize_blocks', spy)
    layer = hbllm.quantize(random_weight(37, columns), random_hessian(columns), options)
    difference = layer.reconstruct() - believed[0]
    assert float(difference.norm() / believed[0].norm()) < 1e-5


def test_what_is_stored_and_nothing_else() -> None:
    """HBLLM-row with shared mean, c salient columns in 4 blocks of 128 and d rows."""
    layer = hbllm.quantize(random_weight(64, 512), random_hessian(512), HbllmOptions())
    assert isinstance(layer, GroupedLayer) and layer.parts.keys() == {'base', 'salient'}
    base, salient = layer.parts['base'], layer.parts['salient']
    assert base.products == (0, 1, 2) and salient.products == (0, 1, 2, 3)
    assert (base.hadamard, base.bands, base.row_hadamard) == (2, 2, 1)
    assert (salient.hadamard, salient.bands, salient.row_hadamard) == (1, 1, 2)
    assert base.permutation is None and base.runs.tolist() == [128] * 4
    assert salient.permutation is not None
    count, runs = len(salient.permutation), len(salient.runs)
    assert int(salient.runs.sum()) == count and runs == 4
    planes = 2 * 64 * (512 // 8 + (count + 7) // 8)
    coefficients = 2 * 64 * (3 * 2 * 4 + 4 * runs)
    assert layer.stored_bytes() == planes + coefficients + 2 * (4 + count + runs)
    assert layer.nominal_bits == pytest.approx(1 + count / 512)


def test_bits_of_the_presets_on_a_wide_layer() -> None:
    """Spec 3.3: row 3.36 to 3.6 with the shared mean and a quarter more without, col 2.88."""
    weight, hessian = random_weight(1024, 1024), None
    bits = {name: stored_bits(hbllm.quantize(weight, hessian, o)) for name, o in PRESETS.items()}
    assert 3.30 < bits['default'] < 3.62
    assert bits['row'] == pytest.approx(bits['default'] + 0.25, abs=0.1)
    assert 2.85 < bits['col'] < 2.92
    assert bits['global'] == pytest.approx(bits['row'], abs=0.1)


def test_errors_of_the_spec(attention: SyntheticLayer) -> None:
    """Table of spec section 6, attn_vo, on a smaller layer: 0.104 row, 0.109 col, 0.190 BiLLM."""

    def error(options: HbllmOptions) -> float:
        layer = hbllm.quantize(attention.weight, attention.calibration, options)
        return output_error(attention, layer.reconstruct())

    published = error(HbllmOptions())
    assert 0.09 < published < 0.16
    assert published < error(PRESETS['row']) < 1.1 * published
    assert published < error(PRESETS['col']) < 1.15 * published
    assert error(HbllmOptions(scale='mean_abs', centred=True)) < 0.92 * published
    assert error(HbllmOptions(feedback='exact')) < 1.02 * published


def test_feedback_pays(attention: SyntheticLayer) -> None:
    blind = hbllm.quantize(attention.weight, None, HbllmOptions())
    calibrated = hbllm.quantize(attention.weight, attention.calibration, HbllmOptions())
    assert output_error(attention, calibrated.reconstruct()) < 0.9 * output_error(
        attention, blind.reconstruct()
    )


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_dead_inputs_constant_rows_and_zero_weights(options: HbllmOptions) -> None:
    weight = random_weight(8, 300)
    weight[2], weight[3] = 0.7, 0.0
    weight[:, 130] = 1e4
    hessian = random_hessian(300)
    hessian[130, :] = hessian[:, 130] = 0.0
    rebuilt = hbllm.quantize(weight, hessian, options).reconstruct()
    assert bool(torch.isfinite(rebuilt).all())
    # A weight of an input that never moves must not spend the levels of the others.
    assert relative_error(weight, rebuilt, hessian) < 0.3
    assert float((rebuilt[2, :128] - 0.7).abs().max()) < 0.1
    assert not hbllm.quantize(torch.zeros(4, 140), None, options).reconstruct().any()
    dead = hbllm.quantize(random_weight(4, 140), torch.zeros(140, 140), options)
    assert not dead.reconstruct().any()


def test_all_but_one_column_of_a_block_may_be_salient() -> None:
    """Two columns, one of them salient; one column, which is not; both run through the fill."""
    weight = random_weight(6, 6) * torch.tensor([1.0, 50, 1, 50, 1, 50])
    layer = hbllm.quantize(weight, None, HbllmOptions(block_size=2))
    assert layer.nominal_bits == 1.5
    assert layer.parts['salient'].runs.tolist() == [1, 1, 1]
    assert relative_error(weight, layer.reconstruct()) < 0.1
    alone = hbllm.quantize(weight[:, :1], None, HbllmOptions())
    assert alone.parts.keys() == {'base'} and alone.nominal_bits == 1


def test_large_and_tiny_weights_survive_sixteen_bits() -> None:
    weight = random_weight(16, 128)
    usual = hbllm.quantize(weight, None, HbllmOptions()).reconstruct()
    for factor in (1e-7, 1e8):
        other = hbllm.quantize(weight * factor, None, HbllmOptions()).reconstruct()
        assert float((other / factor - usual).norm() / usual.norm()) < 0.1


def test_same_bytes_every_time() -> None:
    weight, hessian = random_weight(32, 256), random_hessian(256)
    first, second = (hbllm.quantize(weight, hessian, HbllmOptions()).tensors() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_options_are_settable_and_checked() -> None:
    method = find_method('hbllm')
    assert method.presets.keys() == {'default', 'row', 'col', 'global'}
    changed = with_settings(HbllmOptions(), ['transform=col', 'candidates=7'], 'hbllm')
    assert changed == dataclasses.replace(HbllmOptions(), transform='col', candidates=7)
    with pytest.raises(HbvlaError, match='block_size=7: use an even number'):
        with_settings(HbllmOptions(), ['block_size=7'], 'hbllm')
    with pytest.raises(HbvlaError, match='candidates=1: use 2 or more'):
        with_settings(HbllmOptions(), ['candidates=1'], 'hbllm')


def test_fast_enough_for_a_large_network() -> None:
    """A million weights a second or two: a 4096 x 4096 layer well under two minutes."""
    weight, hessian = random_weight(1024, 512), random_hessian(512)
    start = time.process_time()
    hbllm.quantize(weight, hessian, HbllmOptions())
    assert time.process_time() - start < 3.5
