# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import pack_signs, unpack_signs
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import QuantizedLayer, store_scale
from hbvla_ros.packed.linear import PackedLinear


def make_layer(
    rows: int, columns: int, planes: int = 1, hadamard: int = 128, permuted: bool = False
) -> QuantizedLayer:
    generator = torch.Generator().manual_seed(rows * columns + planes)
    normal = torch.randn(planes, rows, columns, generator=generator)
    return SignPlaneLayer.uniform(
        columns,
        pack_signs(normal),
        torch.rand(planes, rows, generator=generator).half(),
        hadamard,
        torch.randn(columns, generator=generator).half(),
        torch.randperm(columns, generator=generator).int() if permuted else None,
    )


def explicit_transform(layer: QuantizedLayer) -> torch.Tensor:
    """T as a matrix, column by column."""
    return layer.transform(torch.eye(layer.columns)).T


@pytest.mark.parametrize(
    ('rows', 'columns', 'planes', 'permuted'),
    [
        (5, 13, 1, False),
        (700, 80, 1, False),
        (64, 1152, 2, False),
        (33, 4304, 3, True),
        (1, 1, 1, False),
    ],
)
def test_residencies_agree_and_follow_the_definition(
    rows: int, columns: int, planes: int, permuted: bool
) -> None:
    layer = make_layer(rows, columns, planes, permuted=permuted)
    bias = torch.randn(rows, generator=torch.Generator().manual_seed(1))
    inputs = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(2))
    packed = PackedLinear(layer, bias, 'packed')(inputs)
    dense = PackedLinear(layer, bias, 'bf16')(inputs)
    assert (packed - dense).norm() <= 1e-5 * dense.norm()
    expected = inputs @ layer.reconstruct().T + bias
    assert (packed - expected).norm() <= 1e-5 * expected.norm()


def test_reconstruct_is_planes_times_transform() -> None:
    layer = make_layer(6, 40, planes=2, hadamard=32, permuted=True)
    signs = unpack_signs(layer.planes, 40)
    inner = (layer.row_scales.float()[..., None] * signs).sum(0)
    torch.testing.assert_close(
        layer.reconstruct(), inner @ explicit_transform(layer), rtol=1e-5, atol=1e-5
    )


def test_bytes_count_every_tensor() -> None:
    layer = make_layer(10, 13, planes=2, permuted=True)
    assert layer.stored_bytes() == 2 * 10 * 2 + 2 * 10 * 2 + 13 * 2 + 13 * 4
    assert layer.nominal_bits == 2.0


def test_scales_take_the_closer_of_the_two_half_precisions() -> None:
    assert store_scale(torch.tensor([0.1, 3.0])).dtype == torch.float16
    assert store_scale(torch.tensor([1e-7, 2e-7])).dtype == torch.bfloat16
    assert store_scale(torch.tensor([1e6, 1.0])).dtype == torch.bfloat16


def test_wrong_parts_are_named() -> None:
    layer = make_layer(4, 16)
    broken = dataclasses.replace(layer, row_scales=layer.row_scales[:, :3])
    with pytest.raises(HbvlaError, match=r'blocks\.0\.fc1\.row_scales: expected \(1, 4\)'):
        broken.check('blocks.0.fc1')


@pytest.mark.parametrize(
    ('residency', 'message'), [('int8', 'not in this version'), ('x', 'unknown')]
)
def test_residencies_that_do_not_exist_are_refused(residency: str, message: str) -> None:
    with pytest.raises(HbvlaError, match=message):
        PackedLinear(make_layer(4, 16), None, residency)


def test_packed_linear_takes_the_place_of_linear() -> None:
    linear = nn.Linear(16, 4)
    packed = PackedLinear(make_layer(4, 16), linear.bias)
    assert (packed.in_features, packed.out_features) == (16, 4)
    assert not list(packed.parameters())
    held = sum(b.numel() * b.element_size() for n, b in packed.named_buffers() if n != 'bias')
    assert held == make_layer(4, 16).stored_bytes()
