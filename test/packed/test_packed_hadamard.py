# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from hbvla_ros.packed.hadamard import block_hadamard, hadamard_blocks, walsh_hadamard


def sylvester(size: int) -> torch.Tensor:
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


@pytest.mark.parametrize('size', [1, 2, 8, 64, 128])
def test_fast_transform_is_the_sylvester_matrix(size: int) -> None:
    values = torch.randn(3, 5, size, generator=torch.Generator().manual_seed(size))
    expected = values @ sylvester(size) / size**0.5
    torch.testing.assert_close(walsh_hadamard(values), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('columns', 'blocks'),
    [
        (4096, [(0, 128, 32)]),
        (1152, [(0, 128, 9)]),
        (11008, [(0, 128, 86)]),
        (4304, [(0, 128, 33), (4224, 64, 1), (4288, 16, 1)]),
        (96, [(0, 64, 1), (64, 32, 1)]),
        (13, [(0, 8, 1), (8, 4, 1), (12, 1, 1)]),
    ],
)
def test_widths_are_cut_into_powers_of_two(
    columns: int, blocks: list[tuple[int, int, int]]
) -> None:
    assert hadamard_blocks(columns, 128) == blocks


@pytest.mark.parametrize('columns', [1, 3, 13, 80, 128, 200, 1152])
def test_block_transform_is_orthonormal_and_its_own_inverse(columns: int) -> None:
    values = torch.randn(4, columns, generator=torch.Generator().manual_seed(0))
    transformed = block_hadamard(values, 128)
    torch.testing.assert_close(transformed.norm(dim=1), values.norm(dim=1))
    torch.testing.assert_close(block_hadamard(transformed, 128), values, rtol=1e-5, atol=1e-5)


def test_blocks_do_not_mix() -> None:
    values = torch.zeros(1, 192)
    values[0, 150] = 1.0
    transformed = block_hadamard(values, 128)
    assert not transformed[0, :128].any() and transformed[0, 128:].all()


def test_block_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match='power of two'):
        hadamard_blocks(96, 48)
