# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 against a plain reference that looks at every pair."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbvla_ros.quantization.binary.permutation import column_distances, haar_order, sort_by_norm
from hbvla_ros.quantization.binary.saliency import Norm


def whole_numbers(rows: int, columns: int, seed: int, largest: int = 3) -> Tensor:
    """Small whole numbers: norms and distances are exact, and many of them equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, columns), generator=generator).float()


def measure(vector: list[float], norm: Norm) -> float:
    return sum(abs(x) if norm == 'l1' else x * x for x in vector)


def reference(weight: Tensor, norm: Norm, neighbours: int | None, chaining: bool) -> list[int]:
    """The algorithm in plain loops; the lowest column wins among equals.

    With the K nearest neighbours that the paper restricts partners to, which change nothing.
    """
    columns = weight.T.tolist()
    every = range(len(columns))

    def distance(i: int, j: int) -> float:
        return measure([a - b for a, b in zip(columns[i], columns[j], strict=True)], norm)

    unused, pairs, alone = set(every), [], []
    for i in sorted(every, key=lambda i: (-measure(columns[i], norm), i)):
        if i not in unused:
            continue
        unused.remove(i)
        if not unused:
            alone = [i]
            continue
        ranked = sorted((distance(i, j), j) for j in every if j != i)
        near = {j for _, j in ranked[:neighbours]} & unused
        j = min((distance(i, j), j) for j in (near or unused))[1]
        unused.remove(j)
        pairs.append((i, j))
    if not chaining or not pairs:
        return [column for pair in pairs for column in pair] + alone
    order, rest = list(pairs[0]), pairs[1:]
    while rest:
        ends = [(distance(order[-1], pair[e]), pair[e], pair) for pair in rest for e in (0, 1)]
        _, first, pair = min(ends)
        order += [first, pair[1] if first == pair[0] else pair[0]]
        rest.remove(pair)
    return order + alone


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 17),
    seed=st.integers(0, 10**6),
    norm=st.sampled_from(['l1', 'l2']),
    neighbours=st.one_of(st.none(), st.integers(1, 20)),
    chaining=st.booleans(),
)
def test_as_the_reference(
    rows: int, columns: int, seed: int, norm: Norm, neighbours: int | None, chaining: bool
) -> None:
    weight = whole_numbers(rows, columns, seed)
    order = haar_order(weight, norm, chaining).tolist()
    assert sorted(order) == list(range(columns))
    assert order == reference(weight, norm, neighbours, chaining)


def test_one_block_of_real_numbers_is_as_the_reference() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for neighbours in (None, 1, 8):
        expected = reference(weight, 'l2', neighbours, True)
        assert haar_order(weight, 'l2').tolist() == expected


def test_similar_columns_become_pairs() -> None:
    halves = torch.randn(16, 20, generator=torch.Generator().manual_seed(1))
    weight = torch.cat((halves, halves), dim=1)
    order = haar_order(weight, chaining=False)
    assert torch.equal(order[0::2] % 20, order[1::2] % 20)


def test_the_chain_keeps_the_pairs() -> None:
    weight = whole_numbers(5, 31, 3)
    formed = haar_order(weight, chaining=False).tolist()
    chained = haar_order(weight).tolist()
    assert chained != formed
    assert chained[:2] == formed[:2] and chained[-1] == formed[-1]

    def pairs(order: list[int]) -> set[frozenset[int]]:
        return {frozenset(order[k : k + 2]) for k in range(0, len(order), 2)}

    assert pairs(chained) == pairs(formed)


def test_norm_is_both_the_order_and_the_distance() -> None:
    # Behind column 3 comes 0 in l1 and 1 in l2.
    weight = torch.tensor([[3.0, 4.5, 3.0, 4.5], [3.0, 0.0, 0.0, -2.9], [0.0, 0.0, 0.0, 0.0]])
    assert sort_by_norm(weight, 'l1').tolist() == [3, 0, 1, 2]
    assert sort_by_norm(weight, 'l2').tolist() == [3, 1, 0, 2]
    l1, l2 = column_distances(weight, 'l1'), column_distances(weight, 'l2')
    assert l1[0].tolist() == pytest.approx([0.0, 4.5, 3.0, 7.4])
    assert l2[0].tolist() == pytest.approx([0.0, 11.25, 9.0, 37.06], rel=1e-5)


def test_equal_columns_stay_in_order() -> None:
    assert haar_order(torch.ones(3, 7)).tolist() == list(range(7))
    assert haar_order(torch.zeros(1, 4), 'l1').tolist() == list(range(4))


def test_a_whole_layer_takes_seconds() -> None:
    weight = torch.randn(32, 4096, generator=torch.Generator().manual_seed(0))
    begin = time.process_time()
    order = haar_order(weight)
    assert torch.equal(order.sort().values, torch.arange(4096))
    assert time.process_time() - begin < 20
