# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbvla_ros.packed.bits import bytes_per_row, pack_signs, unpack_signs


@settings(max_examples=60, deadline=None)
@given(
    planes=st.integers(1, 3),
    rows=st.integers(1, 9),
    columns=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_signs_of_any_width_survive_packing(
    planes: int, rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (planes, rows, columns), generator=generator).float() * 2 - 1
    packed = pack_signs(signs)
    assert packed.shape == (planes, rows, bytes_per_row(columns)) and packed.dtype == torch.uint8
    assert torch.equal(unpack_signs(packed, columns), signs)


def test_bit_order_is_least_significant_first_and_padding_is_zero() -> None:
    signs = torch.tensor([[1, -1, -1, -1, -1, -1, -1, -1, -1, 1, 1]])
    assert pack_signs(signs).tolist() == [[1, 6]]


def test_zero_counts_as_plus_one() -> None:
    assert pack_signs(torch.zeros(1, 8)).tolist() == [[255]]
