# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.quantization.binary.blocks import quantize_blocks
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods import hbllm, hbvla
from hbvla_ros.quantization.methods.hbvla_options import PRESETS, HbvlaOptions
from hbvla_ros.quantization.options import with_settings
from hbvla_ros.quantization.registry import find_method
from hbvla_ros.quantization.synthetic import SyntheticLayer

PARITY, RECOMMENDED, BEST = (PRESETS[name] for name in ('parity', 'recommended', 'best'))
DROP = HbvlaOptions(nonsalient='drop')
VARIANTS = [
    PARITY,
    RECOMMENDED,
    BEST,
    DROP,
    HbvlaOptions(perm='layer', norm='l1', salient_norm='l1'),
    HbvlaOptions(salient_code='planes', salient_search='error', perm_source='original'),
    HbvlaOptions(feedback='none', saliency='inverse', column_sort=True, chaining=False),
    dataclasses.replace(DROP, salient_search='none', perm='none', shared_mean=False),
    dataclasses.replace(DROP, block_size=2, candidates=2),
    dataclasses.replace(RECOMMENDED, block_size=8, candidates=40, salient_search='error'),
]
SHAPES = [(1, 1), (2, 1), (1, 2), (3, 5), (7, 129), (10, 208)]
NAMED = {'ids': lambda options: f'variant{VARIANTS.index(options)}'}


def random_weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def random_hessian(columns: int, seed: int = 7) -> Tensor:
    inputs = random_weight(400, columns, seed) * torch.linspace(10, 100, columns)
    return inputs.T @ inputs / 400


def grouped(weight: Tensor, hessian: Tensor | None, options: HbvlaOptions) -> GroupedLayer:
    layer = hbvla.quantize(weight, hessian, options)
    assert isinstance(layer, GroupedLayer)
    return layer


@pytest.mark.parametrize('options', VARIANTS, **NAMED)
@pytest.mark.parametrize('calibrated', [True, False])
def test_any_shape(options: HbvlaOptions, calibrated: bool) -> None:
    """Odd rows and columns, a ragged last block (80 of 208 columns), with and without Hessian."""
    for shape in SHAPES:
        weight = random_weight(*shape)
        hessian = random_hessian(shape[1]) if calibrated else None
        layer = grouped(weight, hessian, options)
        layer.check('layer')
        rebuilt = layer.reconstruct()
        assert rebuilt.shape == weight.shape and bool(torch.isfinite(rebuilt).all())
        assert relative_error(weight, rebuilt, hessian) < 0.35
        inputs = random_weight(3, shape[1], 5)
        torch.testing.assert_close(layer.apply(inputs), inputs @ rebuilt.T, rtol=1e-4, atol=1e-6)
        again = layer_from_parts('layer', layer.form, layer.options(), layer.tensors())
        assert torch.equal(again.reconstruct(), rebuilt)


@pytest.mark.parametrize('options', VARIANTS, **NAMED)
@pytest.mark.parametrize('columns', [256, 331])
def test_the_stored_layer_is_what_was_fed_back(
    options: HbvlaOptions, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed = []

    def spy(*arguments: Any) -> Any:
        result = quantize_blocks(*arguments)
        believed.append(result[0])
        return result

    monkeypatch.setattr(hbvla, 'quantize_blocks', spy)
    weight = random_weight(37, columns)
    layer = grouped(weight, random_hessian(columns), options)
    order = hbvla.column_order(weight, options)
    assert torch.equal(order.sort().values, torch.arange(columns))
    difference = layer.reconstruct()[:, order] - believed[0]
    assert float(difference.norm() / believed[0].norm()) < 1e-5


def test_without_its_permutation_and_with_50_candidates_it_is_hbllm() -> None:
    weight, hessian = random_weight(48, 300), random_hessian(300)
    ours = grouped(weight, hessian, HbvlaOptions(perm='none', candidates=50))
    theirs = hbllm.quantize(weight, hessian, hbllm.HbllmOptions())
    assert torch.equal(ours.reconstruct(), theirs.reconstruct())


def test_parity_stores_filled_columns_a_permutation_and_the_residual() -> None:
    layer = grouped(random_weight(64, 208), random_hessian(208), PARITY)
    assert layer.panel is None and layer.parts.keys() == {'base', 'salient'}
    base, salient = layer.parts['base'], layer.parts['salient']
    assert base.products == (0, 1, 2) and salient.products == (0, 1, 2, 3)
    assert (base.hadamard, base.bands, base.row_hadamard) == (2, 2, 1)
    assert (salient.hadamard, salient.bands, salient.row_hadamard) == (1, 1, 2)
    assert base.runs.tolist() == [128, 80] and base.permutation is not None
    assert set(base.permutation[:128].tolist()) == set(range(128))
    assert salient.permutation is not None and 0 < int(salient.runs.max()) < 40
    count = len(salient.permutation)
    planes = 2 * 64 * (208 // 8 + (count + 7) // 8)
    coefficients = 2 * 64 * (3 * 2 * 2 + 4 * 2)
    assert layer.stored_bytes() == planes + coefficients + 2 * (2 + 208 + count + 2)
    assert layer.nominal_bits == pytest.approx(1 + count / 208)


def test_best_stores_whole_columns_apart_and_pairs_the_others() -> None:
    layer = grouped(random_weight(64, 207), random_hessian(207), BEST)
    assert layer.parts.keys() == {'base'} and layer.panel_columns is not None
    base, panel = layer.parts['base'], layer.panel_columns.tolist()
    assert base.permutation is not None and base.runs.tolist() == [120, 71]
    assert len(panel) == 16
    assert sorted(base.permutation.tolist() + panel) == list(range(207))
    assert layer.nominal_bits == pytest.approx(1 + 7 * 16 / 207)


@pytest.mark.parametrize('candidates', [5, 40])
@pytest.mark.parametrize('search', ['score', 'error', 'all'])
def test_dropped_columns_leave_whole_pairs(candidates: int, search: Any) -> None:
    options = dataclasses.replace(DROP, candidates=candidates, salient_search=search)
    layer = grouped(random_weight(24, 300), random_hessian(300), options)
    runs = layer.parts['base'].runs.tolist()
    assert all(run % 2 == 0 for run in runs[:-1])
    assert all(128 - run <= candidates + 1 for run in runs[:-1])


def test_blocks_of_salient_columns_only() -> None:
    """Blocks of two with one salient column each take the other one in, to leave no half pair."""
    weight, hessian = random_weight(12, 9), random_hessian(9)
    options = dataclasses.replace(DROP, block_size=2, candidates=2, perm='none')
    layer = grouped(weight, hessian, options)
    assert layer.parts['salient'].runs.tolist() == [2, 2, 2, 2]
    assert layer.parts['base'].runs.tolist() == [1]
    whole = dataclasses.replace(options, salient_search='all')
    assert grouped(weight[:, :8], hessian[:8, :8], whole).parts.keys() == {'salient'}
    panel = dataclasses.replace(whole, salient_code='int8')
    assert grouped(weight[:, :8], hessian[:8, :8], panel).parts['base'].runs.tolist() == [1]
    filled = dataclasses.replace(whole, nonsalient='fill')
    assert grouped(weight[:, :8], hessian[:8, :8], filled).parts['base'].runs.tolist() == [2] * 4


@pytest.mark.parametrize('options', VARIANTS, **NAMED)
def test_dead_inputs_constant_rows_and_zero_weights(options: HbvlaOptions) -> None:
    weight = random_weight(8, 300)
    weight[2], weight[3] = 0.7, 0.0
    weight[:, 130] = 1e4
    hessian = random_hessian(300)
    hessian[130, :] = hessian[:, 130] = 0.0
    rebuilt = grouped(weight, hessian, options).reconstruct()
    assert bool(torch.isfinite(rebuilt).all())
    # The weight of an input that never moves must not spend the scale of the others.
    assert relative_error(weight, rebuilt, hessian) < 0.35
    assert not grouped(torch.zeros(4, 20), None, options).reconstruct().any()
    assert not grouped(random_weight(4, 20), torch.zeros(20, 20), options).reconstruct().any()


def test_same_bytes_each_time(attention: SyntheticLayer) -> None:
    for options in (PARITY, BEST):
        first, second = (
            grouped(attention.weight, attention.calibration, options).tensors() for _ in range(2)
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_inside_a_block_the_chain_only_turns_pairs_around() -> None:
    """Spec A-13: the signs of some high coefficients change, and with them their mean a little."""
    weight, hessian = random_weight(64, 128), random_hessian(128)
    layers = [
        grouped(weight, hessian, dataclasses.replace(DROP, chaining=chaining))
        for chaining in (True, False)
    ]
    orders = [layer.parts['base'].permutation for layer in layers]
    pairs = [{frozenset(pair) for pair in o.view(-1, 2).tolist()} for o in orders if o is not None]
    assert pairs[0] == pairs[1] and len(pairs[0]) > 40
    errors = [relative_error(weight, layer.reconstruct(), hessian) for layer in layers]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def test_the_two_hessians_do_what_they_are_for() -> None:
    weight, plain, other = random_weight(24, 256), random_hessian(256), random_hessian(256, 3)
    other = other.flip(0, 1)
    both = HbvlaOptions(candidates=8)
    only = dataclasses.replace(both, rectified_feedback=False)

    def rebuilt(options: HbvlaOptions, hessian: Tensor, saliency: Tensor | None) -> Tensor:
        return hbvla.quantize(weight, hessian, options, saliency_hessian=saliency).reconstruct()

    assert torch.equal(rebuilt(only, plain, None), rebuilt(both, plain, None))
    assert torch.equal(rebuilt(both, plain, other), rebuilt(both, other, None))
    apart = rebuilt(only, plain, other)
    assert not torch.equal(apart, rebuilt(both, plain, None))
    assert not torch.equal(apart, rebuilt(both, other, None))
    # The feedback serves the Hessian that it is given.
    assert relative_error(weight, apart, plain) < relative_error(weight, apart, other)
    chosen = [
        grouped_salient(hbvla.quantize(weight, plain, options, saliency_hessian=saliency))
        for options, saliency in ((only, other), (both, other), (both, None))
    ]
    # Before any feedback, the salient columns are those of the Hessian for the saliency.
    assert chosen[0] == chosen[1] != chosen[2]


def grouped_salient(layer: Any) -> set[int]:
    """Salient columns of the first block."""
    columns = layer.parts['salient'].permutation
    return set(columns[columns < 128].tolist())


def test_registered_with_its_presets_and_switches() -> None:
    method = find_method('hbvla')
    assert method.two_hessians and not method.needs_hessian
    assert method.preset('default') == method.preset('best') == BEST
    assert method.preset('parity') == HbvlaOptions()
    changed = with_settings(PARITY, ['norm=l1', 'perm=layer', 'chaining=false'], 'hbvla')
    assert changed == HbvlaOptions(norm='l1', perm='layer', chaining=False)


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('block_size=7', 'even'),
        ('candidates=1', '2 or more'),
        ('refits=-1', '0 or more'),
        ('refits=2', 'nonsalient=drop'),
        ('salient_code=int8', 'nonsalient=drop'),
        ('feedback=full', 'diagonal, exact, none'),
    ],
)
def test_impossible_settings(setting: str, message: str) -> None:
    with pytest.raises(HbvlaError, match=message):
        with_settings(PARITY, [setting], 'hbvla')
