# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.registry import FORMS
from hbvla_ros.packed.layer import store_index, store_scale
from hbvla_ros.packed.linear import PackedLinear
from hbvla_ros.packed.log_scales import read_scale, store_log_scale


def test_scales_take_the_closer_of_the_two_half_precisions() -> None:
    assert store_scale(torch.tensor([0.1, 3.0])).dtype == torch.float16
    assert store_scale(torch.tensor([1e-7, 2e-7])).dtype == torch.bfloat16
    assert store_scale(torch.tensor([1e6, 1.0])).dtype == torch.bfloat16


def test_column_numbers_take_16_bits_as_long_as_they_fit() -> None:
    for columns, dtype in ((2**15 - 1, torch.int16), (2**15, torch.int32)):
        stored = store_index(torch.tensor([0, columns - 1, columns]), columns)
        assert stored.dtype == dtype and stored.tolist() == [0, columns - 1, columns]


def test_scales_of_8_bits_keep_sign_zero_and_size() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(0)).exp()
    values[::3] *= -1
    values[7] = 0.0
    codes, span = store_log_scale(values)
    assert codes.dtype == torch.uint8 and span.shape == (2,)
    read = read_scale(codes, span)
    assert read[7] == 0.0 and bool((read.sign() == values.sign()).all())
    alive = values != 0
    most = float(values[alive].abs().max() / values[alive].abs().min()) ** (1 / 126)
    assert (read[alive] / values[alive]).log().abs().max() < 0.51 * torch.tensor(most).log()


@pytest.mark.parametrize('values', [[0.0, 0.0], [3.0, 3.0], [-2.0], []])
def test_scales_of_8_bits_without_a_range(values: list[float]) -> None:
    stored = store_log_scale(torch.tensor(values))
    torch.testing.assert_close(read_scale(*stored), torch.tensor(values), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ('residency', 'message'), [('int8', 'not in this version'), ('x', 'unknown')]
)
def test_residencies_that_do_not_exist_are_refused(make: Any, residency: str, message: str) -> None:
    with pytest.raises(HbvlaError, match=message):
        PackedLinear(make.sign_planes(4, 16), None, residency)


@pytest.mark.parametrize('form', FORMS)
def test_packed_linear_takes_the_place_of_linear(make: Any, form: str) -> None:
    linear = nn.Linear(16, 4)
    layer = make.any(form, 4, 16, 5)
    packed = PackedLinear(layer, linear.bias)
    assert (packed.in_features, packed.out_features) == (16, 4)
    assert not list(packed.parameters())
    held = sum(b.numel() * b.element_size() for n, b in packed.named_buffers() if n != 'bias')
    assert held == layer.stored_bytes()
    assert 'in_features' not in repr(packed) and repr(packed).startswith('PackedLinear(16, 4')
