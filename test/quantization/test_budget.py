# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import stored_bits_per_weight
from hbvla_ros.quantization.budget import check_bits, options_for_layer
from hbvla_ros.quantization.methods.dbf import DbfOptions
from hbvla_ros.quantization.methods.rtn import RtnOptions
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.registry import METHODS, Method
from hbvla_ros.quantization.tiles import layer_bytes, planes_of_tiles, tile_rows

RTN, SIGNPLANE, DBF = METHODS['rtn'], METHODS['signplane'], METHODS['dbf']
FIXED = Method('fixed', RTN.quantize, {'default': RtnOptions()})
QUICK = SignPlaneOptions(rounds=1, cycles=0)


def weight_of(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_whole_numbers_are_planes_and_none_leaves_the_method_its_own_size() -> None:
    for bits in (1, 2.0, 3):
        options = options_for_layer(SIGNPLANE, SignPlaneOptions(stored_bits=1.3), 10, 20, bits)
        assert isinstance(options, SignPlaneOptions)
        assert options.planes == bits and options.stored_bits is None
        assert options_for_layer(RTN, RtnOptions(), 10, 20, bits) == RtnOptions(planes=int(bits))
    assert options_for_layer(SIGNPLANE, QUICK, 10, 20, None) == QUICK
    assert options_for_layer(FIXED, RtnOptions(), 10, 20, None) == RtnOptions()


@pytest.mark.parametrize(
    ('method', 'bits', 'message'),
    [
        (FIXED, 1.0, '--bits 1: the size of fixed is fixed by the method; leave --bits out'),
        (RTN, 1.5, '--bits 1.5: rtn takes 1, 2 or 3'),
        (SIGNPLANE, float('nan'), '--bits nan: must be a positive number'),
        (SIGNPLANE, float('inf'), '--bits inf: must be a positive number'),
        (SIGNPLANE, -1.0, '--bits -1: must be a positive number'),
    ],
)
def test_numbers_that_no_layer_can_have_are_refused(
    method: Method, bits: float, message: str
) -> None:
    with pytest.raises(HbvlaError, match=message):
        check_bits(method, bits)


def test_too_small_a_budget_says_the_smallest_that_works() -> None:
    default = SignPlaneOptions()
    with pytest.raises(HbvlaError, match=r'1\.133 stored bits .* 128 x 128; ask for --bits 1\.14'):
        options_for_layer(SIGNPLANE, default, 128, 128, 1.1)
    fits = options_for_layer(SIGNPLANE, default, 128, 128, 1.14)
    layer = SIGNPLANE.quantize(weight_of(128, 128), None, fits)
    assert stored_bits_per_weight([layer]) <= 1.14
    with pytest.raises(HbvlaError, match=r'dbf takes at least 0\.2\d\d stored bits .* 128 x 128'):
        options_for_layer(DBF, DBF.preset('default'), 128, 128, 0.1)


def test_dbf_takes_any_budget_also_a_whole_number() -> None:
    quick = DbfOptions(steps=2, rounds=0)
    for bits in (0.5, 1, 1.7):
        options = options_for_layer(DBF, quick, 64, 96, bits)
        layer = DBF.quantize(weight_of(64, 96), None, options)
        assert 0.9 * bits < stored_bits_per_weight([layer]) <= bits


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 400),
    columns=st.integers(1, 300),
    over=st.floats(0, 3),
    settings_=st.fixed_dictionaries(
        {},
        optional={
            'scale_bits': st.sampled_from([8, 16]),
            'balance': st.booleans(),
            'column_signs': st.sampled_from(['none', 'principal']),
        },
    ),
)
def test_layers_never_exceed_their_budget(
    rows: int, columns: int, over: float, settings_: dict[str, Any]
) -> None:
    options = SignPlaneOptions(rounds=0, cycles=0, **settings_)
    least = options.stored_bytes(rows, columns, [1] * len(tile_rows(rows)))
    bits = 8 * (least + 0.01) / (rows * columns) + over
    fitted = options_for_layer(SIGNPLANE, options, rows, columns, bits)
    layer = SIGNPLANE.quantize(weight_of(rows, columns), None, fitted)
    layer.check('layer')
    assert layer.stored_bytes() <= bits * rows * columns / 8
    assert layer.reconstruct().shape == (rows, columns)


def test_the_tiles_with_most_to_gain_get_the_planes() -> None:
    energies = [1.0, 8.0, 2.0, 0.5]
    budget = layer_bytes(512, 100, [1, 2, 1, 1])
    assert planes_of_tiles(512, 100, budget, energies) == [1, 2, 1, 1]
    assert planes_of_tiles(512, 100, budget - 1, energies) == [1, 1, 1, 1]
    assert planes_of_tiles(512, 100, layer_bytes(512, 100, [1, 3, 1, 1]), energies) == [1, 3, 1, 1]
    assert planes_of_tiles(512, 100, layer_bytes(512, 100, [2, 2, 2, 2]), energies) == [2, 2, 2, 2]
    assert planes_of_tiles(512, 100, 10**9, energies) == [3, 3, 3, 3]
    assert planes_of_tiles(512, 100, layer_bytes(512, 100, [1] * 4) - 1, energies) is None


def test_a_layer_of_unequal_rows_spends_planes_on_the_large_ones() -> None:
    weight = weight_of(384, 256)
    weight[128:256] *= 5
    options = options_for_layer(SIGNPLANE, QUICK, 384, 256, 1.45)
    layer: Any = SIGNPLANE.quantize(weight, None, options)
    assert layer.tile_planes.tolist() == [1, 2, 1]
    plain = SIGNPLANE.quantize(weight, None, QUICK)
    error, before = (float((weight - each.reconstruct()).square().sum()) for each in (layer, plain))
    assert error < 0.5 * before


def test_explicit_tiles_are_taken_or_refused() -> None:
    layer: Any = SIGNPLANE.quantize(
        weight_of(200, 64), None, SignPlaneOptions(rounds=1, cycles=1, tile_planes='31')
    )
    assert layer.tile_planes.tolist() == [3, 1]
    with pytest.raises(HbvlaError, match='tile_planes 3: 200 rows take 2 digits'):
        SIGNPLANE.quantize(weight_of(200, 64), None, SignPlaneOptions(tile_planes='3'))
    with pytest.raises(ValueError, match='digits of 1 to 3'):
        SignPlaneOptions(tile_planes='14')
