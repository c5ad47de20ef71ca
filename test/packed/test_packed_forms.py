# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Every form against a plain decoder written from docs/formats.md, with whole matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.grouped_part import GroupedPart
from hbvla_ros.packed.forms.registry import FORMS, layer_from_parts
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.linear import PackedLinear

Matrix = NDArray[np.float64]
FIXTURE_OK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def signs(packed: torch.Tensor, width: int) -> Matrix:
    bits = np.unpackbits(packed.numpy(), axis=-1, count=width, bitorder='little')
    return bits.astype(np.float64) * 2 - 1


def scales(layer: Any, name: str) -> Matrix:
    stored, span = getattr(layer, name), getattr(layer, f'{name}_span')
    if span is None:
        return stored.double().numpy()
    codes = stored.numpy().astype(int)
    low, step = span.double().numpy()
    magnitude = np.where(codes % 128 == 0, 0.0, np.exp(low + (codes % 128 - 1) * step))
    return np.where(codes >= 128, -magnitude, magnitude)


def hadamard(size: int, largest: int) -> Matrix:
    """Block-diagonal: as many blocks of the largest as fit, then falling powers of two."""
    matrix = np.zeros((size, size))
    start, block = 0, largest
    while start < size:
        while start + block > size:
            block //= 2
        sylvester = np.ones((1, 1))
        while len(sylvester) < block:
            sylvester = np.kron(np.array([[1, 1], [1, -1]]), sylvester)
        matrix[start : start + block, start : start + block] = sylvester / block**0.5
        start += block
    return matrix


def transform(part: Any) -> Matrix:
    """T (width, columns)."""
    order = range(part.columns) if part.permutation is None else part.permutation.tolist()
    gather = np.zeros((len(order), part.columns))
    gather[np.arange(len(order)), list(order)] = 1
    if getattr(part, 'column_scale', None) is not None:
        gather = scales(part, 'column_scale')[:, None] * gather
    return hadamard(len(order), part.hadamard) @ gather


def decode_sign_planes(layer: SignPlaneLayer) -> Matrix:
    rows = layer.rows
    counts = [layer.uniform_planes] * -(-rows // 128)
    if layer.tile_planes is not None:
        counts = layer.tile_planes.tolist()
    stored, row_scales = signs(layer.planes, layer.columns), scales(layer, 'row_scales')
    weight = np.zeros((rows, layer.columns))
    place = 0
    for plane in range(max(counts)):
        for row in range(rows):
            if counts[row // 128] > plane:
                weight[row] += row_scales[place] * stored[place]
                place += 1
    assert place == len(stored) == len(row_scales)
    return weight @ transform(layer)


def decode_factored(layer: FactoredLayer) -> Matrix:
    outer, inner = signs(layer.outer, layer.width), signs(layer.inner, layer.columns)
    inner = scales(layer, 'inner_scales')[:, None] * inner
    return scales(layer, 'row_scales')[:, None] * (outer @ inner) @ transform(layer)


def decode_grouped(layer: GroupedLayer) -> Matrix:
    weight = np.zeros((layer.rows, layer.columns))
    for part in layer.parts.values():
        matrix = transform(part)
        planes, coefficients = signs(part.planes, len(matrix)), part.coefficients.double().numpy()
        levels = np.zeros((layer.rows, len(matrix)))
        column = 0
        for run, length in enumerate(part.runs.tolist()):
            for place in range(length):
                group = run * part.bands + place % part.bands
                for c, product in enumerate(part.products):
                    term = coefficients[c, :, group]
                    for p in range(len(planes)):
                        term = term * planes[p, :, column] if product & (1 << p) else term
                    levels[:, column] += term
                column += 1
        weight += hadamard(layer.rows, part.row_hadamard) @ levels @ matrix
    if layer.panel is not None and layer.panel_columns is not None:
        assert layer.panel_scales is not None
        panel = layer.panel.double().numpy() * layer.panel_scales.double().numpy()
        weight[:, layer.panel_columns.tolist()] += panel
    return weight


def decode(layer: QuantizedLayer) -> torch.Tensor:
    if isinstance(layer, SignPlaneLayer):
        return torch.from_numpy(decode_sign_planes(layer))
    if isinstance(layer, FactoredLayer):
        return torch.from_numpy(decode_factored(layer))
    assert isinstance(layer, GroupedLayer)
    return torch.from_numpy(decode_grouped(layer))


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within 1e-5 of the size of what is wanted."""
    return bool((found.double() - wanted.double()).norm() <= 1e-5 * wanted.double().norm() + 1e-9)


def inputs(columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('form', FORMS)
@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURE_OK)
@given(rows=st.integers(1, 300), columns=st.integers(1, 140), seed=st.integers(0, 10_000))
def test_layers_of_any_shape_mean_what_the_format_says(
    make: Any, form: str, rows: int, columns: int, seed: int
) -> None:
    layer = make.any(form, rows, columns, seed)
    layer.check('layer')
    weight = decode(layer)
    assert weight.shape == (layer.rows, layer.columns) == (rows, columns)
    assert close(layer.reconstruct(), weight)
    x = inputs(columns, seed)
    assert close(layer.apply(x), x.double() @ weight.T)


@pytest.mark.parametrize('form', FORMS)
@settings(max_examples=40, deadline=None, suppress_health_check=FIXTURE_OK)
@given(rows=st.integers(1, 300), columns=st.integers(1, 140), seed=st.integers(0, 10_000))
def test_parts_make_the_same_layer_again(
    make: Any, form: str, rows: int, columns: int, seed: int
) -> None:
    layer = make.any(form, rows, columns, seed)
    again = layer_from_parts('layer', form, layer.options(), layer.tensors())
    assert again.options() == layer.options()
    assert again.nominal_bits == layer.nominal_bits
    assert again.stored_bytes() == layer.stored_bytes()
    assert list(again.tensors()) == list(layer.tensors())
    assert torch.equal(again.reconstruct(), layer.reconstruct())


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(('rows', 'columns'), [(5, 13), (700, 80), (131, 1152), (33, 4304), (1, 1)])
def test_residencies_agree(make: Any, form: str, rows: int, columns: int) -> None:
    layer = make.any(form, rows, columns, rows)
    bias = torch.randn(rows, generator=torch.Generator().manual_seed(1))
    x = inputs(columns)
    wanted = x @ layer.reconstruct().T + bias
    assert close(PackedLinear(layer, bias, 'packed')(x), wanted)
    assert close(PackedLinear(layer, bias, 'bf16')(x), wanted)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_activations_keep_their_dtype(make: Any, form: str, dtype: torch.dtype) -> None:
    layer = make.any(form, 40, 72, 3)
    x = inputs(72)
    outputs = layer.apply(x.to(dtype))
    assert outputs.dtype == dtype
    wanted = x @ layer.reconstruct().T
    tolerance = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float64: 1e-5}[dtype]
    assert (outputs.float() - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize('products', [(0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 5, 2, 6)])
def test_products_of_planes_by_hand(products: tuple[int, ...]) -> None:
    """One row, one group: a level is the sum of coefficients times products of signs."""
    plane_signs = torch.tensor([[[1, 1, -1, -1]], [[1, -1, 1, -1]], [[-1, 1, 1, 1]]])
    values = [0.5, 2.0, -1.0, 4.0, 0.25][: len(products)]
    part = GroupedPart(
        4, pack_signs(plane_signs), products,
        torch.tensor(values).half().reshape(-1, 1, 1), torch.tensor([4]).short(),
    )  # fmt: skip
    for column in range(4):
        wanted = 0.0
        for value, product in zip(values, products, strict=True):
            for plane in range(3):
                value *= float(plane_signs[plane, 0, column]) if product >> plane & 1 else 1.0
            wanted += value
        assert float(part.reconstruct()[0, column]) == wanted


def test_haar_bands_take_turns_and_the_odd_last_column_is_low() -> None:
    part = GroupedPart(
        7, pack_signs(torch.ones(1, 1, 7)), (0, 1), torch.zeros(2, 1, 4).half(),
        torch.tensor([4, 3]).short(), bands=2, hadamard=2,
    )  # fmt: skip
    assert part.group_of_column().tolist() == [0, 1, 0, 1, 2, 3, 2]


def test_bytes_count_every_tensor(make: Any) -> None:
    layer = make.sign_planes(10, 13, planes=2, permuted=True)
    assert layer.stored_bytes() == 2 * 10 * 2 + 2 * 10 * 2 + 13 * 2 + 13 * 2
    assert layer.nominal_bits == 2.0
    log = make.sign_planes(10, 13, planes=2, log=True)
    assert log.stored_bytes() == 2 * 10 * 2 + 2 * 10 + 8 + 13 + 8
    factored = make.factored(10, 13, 9)
    assert factored.stored_bytes() == 10 * 2 + 9 * 2 + 2 * (10 + 9 + 13)
    assert factored.nominal_bits == pytest.approx(9 * (10 + 13) / 130)
    tiled = make.sign_planes(300, 16, planes=3, tiled=True, scaled=False, seed=2)
    counts = tiled.tile_planes.tolist()
    rows = sum(n * height for n, height in zip(counts, (128, 128, 44), strict=True))
    assert len(set(counts)) > 1
    assert tiled.stored_bytes() == rows * (2 + 2) + 3
    assert tiled.nominal_bits == pytest.approx(rows / 300)


def test_tiles_with_fewer_planes_take_less_room_and_keep_the_first_ones(make: Any) -> None:
    full = make.sign_planes(256, 24, planes=3, seed=4)
    planes, row_scales = full.planes.unflatten(0, (3, 256)), full.row_scales.unflatten(0, (3, 256))
    rest = {'column_scale': full.column_scale, 'hadamard': full.hadamard}
    tiled = SignPlaneLayer.tiled(24, planes, row_scales, torch.tensor([3, 1]), **rest)
    one = SignPlaneLayer.uniform(24, planes[:1], row_scales[:1], **rest)
    assert torch.equal(tiled.reconstruct()[:128], full.reconstruct()[:128])
    assert torch.equal(tiled.reconstruct()[128:], one.reconstruct()[128:])
    assert full.stored_bytes() - tiled.stored_bytes() == 2 * 128 * (3 + 2) - 2
