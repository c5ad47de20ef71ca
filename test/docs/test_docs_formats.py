# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""docs/formats.md against the code: keys of platform, manifest and forms, the worked example."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.grouped import GroupedLayer, GroupedPart
from hbvla_ros.packed.forms.registry import FORMS
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.manifest import LayerEntry, Manifest
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.vla.platform import PLATFORMS, Platform

FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```', re.MULTILINE | re.DOTALL)


def test_platform_keys_and_names(page, section, rows):
    text = section(page('docs/formats.md'), 'platform.json')
    table = text.partition('Built in')[0]
    described = {cells[0].strip('`'): cells[2].strip('`') for cells in rows(table)}
    assert list(described) == [field.name for field in dataclasses.fields(Platform)]
    for field in dataclasses.fields(Platform):
        missing = field.default is dataclasses.MISSING
        shown = {True: 'true', False: 'false', None: 'null'}.get(field.default, str(field.default))
        assert described[field.name] == ('required' if missing else shown), field.name
    header = text.partition('Built in')[2].split('\n\n')[1].splitlines()[0]
    assert re.findall(r'`(\w+)`', header) == list(PLATFORMS)


def test_manifest_keys(page, section, rows, names):
    text = section(page('docs/formats.md'), 'Manifest')
    assert set(names(text)) == {field.name for field in dataclasses.fields(Manifest)}
    described = {cells[0].strip('`'): cells[1] for cells in rows(text)}
    for key, kind in (('layers', LayerEntry), ('options', MethodOptions)):
        fields = [field.name for field in dataclasses.fields(kind)]
        assert re.findall(r'`(\w+)`', described[key]) == fields


def form_examples():
    """A layer of each form with every part and option that the form has."""
    signs, index = torch.zeros(2, 1, dtype=torch.uint8), torch.arange(2, dtype=torch.int16)
    scale, span = torch.ones(2).half(), torch.zeros(2)
    shared = {
        'columns': 2, 'row_scales': scale, 'row_scales_span': span, 'column_scale': scale,
        'column_scale_span': span, 'permutation': index,
    }  # fmt: skip
    part = GroupedPart(2, signs[None], (0, 1), scale.reshape(1, 2, 1), index, permutation=index)
    return (
        SignPlaneLayer(planes=signs, tile_planes=signs[0], row_count=2, **shared),
        SignPlaneLayer(planes=signs, **shared),
        FactoredLayer(
            outer=signs, inner=signs, inner_scales=scale, inner_scales_span=span, **shared
        ),
        GroupedLayer(2, {'part': part}, 1.0, signs.char(), scale, index),
    )


@pytest.mark.parametrize('layer', form_examples(), ids=lambda layer: layer.form)
def test_parts_and_options_of_the_forms(layer, page, section, names):
    text = section(page('docs/formats.md'), f'Form {layer.form}')
    described = {name.replace('{part}', 'part') for name in names(text)}
    found = set(layer.tensors())
    assert found == described - ({'tile_planes'} - found)
    options = text.partition('`form_options`:')[2].partition('\n\n')[0].partition('. ')[0]
    assert set(layer.options()) <= set(re.findall(r'`(\w+)`', options))


def test_every_form_is_described(page):
    headings = re.findall(r'^### Form (\w+)$', page('docs/formats.md'), re.MULTILINE)
    assert headings == list(FORMS)


def test_worked_example_of_the_quantized_layer_holds(page):
    examples = [block for kind, block in FENCE.findall(page('docs/formats.md')) if kind == 'python']
    assert len(examples) == 1
    exec(compile(examples[0], 'docs/formats.md', 'exec'), {})
