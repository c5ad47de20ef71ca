# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Damaged and forged layers are refused in one line that names the tensor or the option."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.grouped_part import GroupedPart
from hbvla_ros.packed.forms.registry import FORMS, layer_from_parts
from hbvla_ros.packed.layer import QuantizedLayer

NAME = 'language_model.model.layers.3.mlp.up_proj'


def refused(layer: QuantizedLayer, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> str:
    """The message for a layer whose stored options and tensors were changed."""
    options, parts = copy.deepcopy(layer.options()), dict(layer.tensors())
    change(options, parts)
    with pytest.raises(HbvlaError) as caught:
        layer_from_parts(NAME, layer.form, options, parts)
    message = str(caught.value)
    assert '\n' not in message and message.startswith(NAME) and 'quantize' in message
    return message


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('seed', range(4))
def test_missing_and_extra_tensors_are_named(make: Any, form: str, seed: int) -> None:
    layer = make.any(form, 130, 40, seed)
    optional = ('permutation', 'panel', 'column_scale', 'span', 'tile_planes')
    for part in layer.tensors():
        if not any(word in part for word in optional):
            message = refused(layer, lambda _, parts, part=part: parts.pop(part))
            # Parts of a grouped layer are named one by one.
            assert part.removeprefix('base_') in message or part.split('_')[-1] in message
    extra = torch.zeros(3)
    assert 'surplus' in refused(layer, lambda _, parts: parts.update(surplus=extra))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('seed', range(6))
def test_tensors_of_another_shape_or_dtype_are_named(make: Any, form: str, seed: int) -> None:
    layer = make.any(form, 130, 40, seed)
    for part, tensor in layer.tensors().items():
        for wrong in (
            tensor[None],
            tensor.flatten()[0],
            tensor[:0],
            torch.cat([tensor, tensor[-1:]]),
            tensor.double(),
            tensor.to(torch.int64),
        ):
            message = refused(layer, lambda _, parts, p=part, w=wrong: parts.update({p: w}))
            # A longer tensor may make its partners look too short.
            if wrong.ndim != tensor.ndim or wrong.dtype != tensor.dtype:
                assert f'{NAME}.{part}: ' in message, (part, message)
            else:
                assert re.match(rf'{re.escape(NAME)}\.\w+: ', message), message


@pytest.mark.parametrize('form', FORMS)
def test_forms_and_options_of_other_kinds_are_refused(make: Any, form: str) -> None:
    layer = make.any(form, 20, 40, 1)
    for option in layer.options():
        assert option in refused(layer, lambda options, _, o=option: options.pop(o))
        for value in (None, 'x', -1, 0, 1.5, [1], {}, True, 10**15):
            if option == 'paper_bits' and value in (0, 1.5, 10**15):
                continue
            refused(layer, lambda options, _, o=option, v=value: options.update({o: v}))
    assert 'wheels' in refused(layer, lambda options, _: options.update(wheels=4))
    with pytest.raises(HbvlaError, match=r"form 'spline' is unknown, this release reads sign_pl"):
        layer_from_parts(NAME, 'spline', layer.options(), layer.tensors())


@pytest.mark.parametrize('form', ['sign_planes', 'factored'])
@pytest.mark.parametrize(
    ('place', 'value', 'message'),
    [
        (3, 40, 'permutation: column 40 is out of range, the layer has 40'),
        (3, -1, 'permutation: column -1 is out of range'),
        (3, None, r'permutation: column \d+ is there twice'),
    ],
)
def test_permutations_that_are_none_are_refused(
    make: Any, form: str, place: int, value: int | None, message: str
) -> None:
    makers = {
        'sign_planes': lambda: make.sign_planes(8, 40, permuted=True),
        'factored': lambda: make.factored(8, 40, 5, permuted=True),
    }
    layer = makers[form]()
    wrong = layer.permutation.clone()
    wrong[place] = wrong[place + 1] if value is None else value
    found = refused(layer, lambda _, parts: parts.update(permutation=wrong))
    assert re.search(rf'{re.escape(NAME)}\.{message}', found), found


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
@pytest.mark.parametrize('form', FORMS)
def test_scales_that_are_no_numbers_are_refused(make: Any, form: str, value: float) -> None:
    layer = {
        'sign_planes': make.sign_planes(8, 40),
        'factored': make.factored(8, 40, 5),
        'grouped': make.grouped(8, 40, panel=3),
    }[form]
    for part, tensor in layer.tensors().items():
        if tensor.is_floating_point():
            wrong = tensor.clone()
            wrong.flatten()[-1] = value
            message = refused(layer, lambda _, parts, p=part, w=wrong: parts.update({p: w}))
            assert f'{NAME}.{part}: it holds NaN or infinity' in message


def test_spans_of_8_bit_scales_belong_to_them(make: Any) -> None:
    layer = make.sign_planes(8, 40, log=True)
    huge = torch.tensor([80.0, 10.0])
    for part in ('row_scales', 'column_scale'):
        message = refused(layer, lambda _, parts, p=part: parts.update({f'{p}_span': huge}))
        assert f'{NAME}.{part}: it holds NaN or infinity' in message
        message = refused(layer, lambda _, parts, p=part: parts.pop(f'{p}_span'))
        assert f'{NAME}.{part}: expected' in message
    message = refused(layer, lambda _, parts: parts.pop('column_scale'))
    assert f'{NAME}.column_scale_span: there is no column_scale' in message


def test_plane_counts_that_cannot_be_are_refused(make: Any) -> None:
    uniform = make.sign_planes(9, 16, planes=2)
    assert 'planes: expected a whole number from 1 to 3, found 0' in refused(
        uniform, lambda options, _: options.update(planes=0)
    )
    assert 'found 4' in refused(uniform, lambda options, _: options.update(planes=4))
    assert '20 rows are no 3 equal planes' in refused(
        make.sign_planes(10, 16, planes=2), lambda options, _: options.update(planes=3)
    )
    tiled = make.sign_planes(300, 16, planes=3, tiled=True, seed=2)
    for counts, message in (
        ([0, 1, 1], 'a tile of 0 planes, 1 to 3'),
        ([1, 4, 1], 'a tile of 4 planes'),
        ([1, 1], r'tile_planes: expected \(3,\) uint8, found \(2,\)'),
        ([1, 1, 1], r'planes: expected \(300, 2\) uint8'),
    ):
        wrong = torch.tensor(counts, dtype=torch.uint8)
        found = refused(tiled, lambda _, parts, w=wrong: parts.update(tile_planes=w))
        assert re.search(message, found), found
    assert 'rows' in refused(tiled, lambda options, _: options.update(rows=10**12))
    assert 'tile_planes: expected' in refused(tiled, lambda options, _: options.update(rows=500))


def test_runs_that_do_not_add_up_are_refused(make: Any) -> None:
    layer = make.grouped(8, 40, seed=1, parts=1)
    part = layer.parts['base']
    for runs in (part.runs * 0, part.runs + 1, -part.runs):
        message = refused(layer, lambda _, parts, r=runs: parts.update(base_runs=r))
        assert re.search(r'base_runs: they add up to -?\d+ of \d+ columns', message)


def test_products_of_planes_that_do_not_exist_are_refused(make: Any) -> None:
    layer = make.grouped(8, 40, seed=1, parts=1)
    count, planes = len(layer.parts['base'].products), len(layer.parts['base'].planes)
    for wrong in (2**planes, -1, 1.0, '1'):
        message = refused(
            layer, lambda o, _, w=wrong: o['parts']['base'].update(products=[w] * count)
        )
        assert f'base_products: expected a whole number from 0 to {2**planes - 1}' in message
    every = list(range(2**planes))
    assert 'coefficients: expected' in refused(
        layer, lambda o, _: o['parts']['base'].update(products=[*every, 0])
    )
    assert f'planes: there are {planes}, the products take 0 of them' in refused(
        layer, lambda o, _: o['parts']['base'].update(products=[0] * count)
    )
    assert 'products: there are none' in refused(
        layer, lambda o, _: o['parts']['base'].update(products=[])
    )


@pytest.mark.parametrize(
    ('option', 'value'), [('bands', 3), ('bands', 0), ('hadamard', 3), ('row_hadamard', 6)]
)
def test_options_of_parts_that_cannot_be_are_refused(make: Any, option: str, value: int) -> None:
    layer = make.grouped(8, 40)
    message = refused(layer, lambda o, _: o['parts']['base'].update({option: value}))
    assert f'{NAME}.base_{option}: expected' in message


def test_parts_of_different_rows_are_refused(make: Any) -> None:
    parts = make.grouped(8, 40, parts=1).parts | {
        'salient': make.grouped(9, 40, seed=3, parts=1).parts['base']
    }
    with pytest.raises(HbvlaError, match=r'salient_planes: 9 rows, the layer has 8'):
        GroupedLayer(40, parts, 1.0).check(NAME)


def test_parts_of_different_columns_are_refused(make: Any) -> None:
    layer = make.grouped(8, 40, parts=1, seed=1)
    other = make.grouped(8, 41, parts=1, seed=1).parts['base']
    with pytest.raises(HbvlaError, match=r'salient_columns: 41, the layer has 40'):
        GroupedLayer(40, layer.parts | {'salient': other}, 1.0).check(NAME)


def test_panels_are_complete_and_on_columns_that_exist(make: Any) -> None:
    layer = make.grouped(8, 40, panel=3)
    for part in ('panel', 'panel_scales', 'panel_columns'):
        message = refused(layer, lambda _, parts, p=part: parts.pop(p))
        assert f'{NAME}.{part}: it is missing' in message
    outside = torch.tensor([1, 2, 40], dtype=torch.int16)
    twice = torch.tensor([1, 2, 2], dtype=torch.int16)
    assert 'panel_columns: column 40 is out of range' in refused(
        layer, lambda _, parts: parts.update(panel_columns=outside)
    )
    assert 'panel_columns: column 2 is there twice' in refused(
        layer, lambda _, parts: parts.update(panel_columns=twice)
    )


def test_layers_made_by_hand_are_checked_too(make: Any) -> None:
    layer = make.sign_planes(4, 16)
    broken = dataclasses.replace(layer, row_scales=layer.row_scales[:3])
    with pytest.raises(HbvlaError, match=r'blocks\.0\.fc1\.row_scales: expected \(4,\) float16 or'):
        broken.check('blocks.0.fc1')
    with pytest.raises(HbvlaError, match='parts: there are none'):
        GroupedLayer(16, {}, 1.0).check(NAME)
    part: GroupedPart = make.grouped(4, 16, parts=1).parts['base']
    with pytest.raises(HbvlaError, match='paper_bits: expected a number, found nan'):
        GroupedLayer(16, {'base': part}, float('nan')).check(NAME)


@pytest.mark.parametrize('form', FORMS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 30), data=st.data())
def test_no_forged_layer_gets_past_the_check_and_fails_later(
    make: Any, form: str, seed: int, data: st.DataObject
) -> None:
    """Whatever integers are put in: refused in one line, or a layer that works."""
    layer = make.any(form, 150, 24, seed)
    options, parts = copy.deepcopy(layer.options()), dict(layer.tensors())
    part = data.draw(st.sampled_from(sorted(parts)))
    changed = parts[part].clone()
    place = data.draw(st.integers(0, changed.numel() - 1))
    raw = changed.flatten().view(torch.uint8)
    size = changed.element_size()
    for byte in range(size):
        raw[place * size + byte] = data.draw(st.integers(0, 255))
    parts[part] = raw.view(changed.dtype).reshape(changed.shape)
    try:
        forged = layer_from_parts(NAME, form, options, parts)
    except HbvlaError as error:
        assert f'{NAME}.' in str(error) and '\n' not in str(error)
        return
    assert bool(forged.reconstruct().isfinite().all())
    assert forged.apply(torch.ones(24)).shape == (150,)
