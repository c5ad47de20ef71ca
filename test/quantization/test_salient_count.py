# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How many salient columns, the errors that decide it, and the refits that lower one of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hbvla_ros.quantization.binary.blocks import prepare
from hbvla_ros.quantization.binary.grouping import GroupRule, search_groups
from hbvla_ros.quantization.binary.haar import haar_columns, join_bands, split_bands
from hbvla_ros.quantization.binary.refine import block_metric, refine_codes
from hbvla_ros.quantization.binary.salient_count import (
    COUNTS,
    best_salient,
    joint_error,
    salient_counts,
    weighted_error,
)


def random_weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def random_hessian(columns: int, seed: int = 7) -> Tensor:
    inputs = random_weight(400, columns, seed) * torch.linspace(10, 100, columns)
    return inputs.T @ inputs / 400


def test_numbers_of_salient_columns() -> None:
    assert salient_counts(COUNTS, 128, 40, False) == list(COUNTS)
    assert salient_counts(COUNTS, 128, 40, True) == [0, 2, 4, 6, 8, 12, 16, 24, 32, 40]
    assert salient_counts(COUNTS, 81, 5, True) == [1, 3, 5]
    assert salient_counts([7], 3, 40, False) == [3]
    assert salient_counts([3], 4, 40, True) == [4]


def test_the_best_number_of_salient_columns_is_the_one_with_the_least_error() -> None:
    errors = {0: 3.0, 1: 2.0, 2: 1.0, 4: 1.0, 8: 5.0}
    ranking = torch.arange(10).flip(0)
    chosen = best_salient(ranking, list(errors), lambda s: (errors[len(s)], s.tolist()))
    assert chosen == [9, 8]


def test_errors_that_numbers_of_columns_are_judged_by() -> None:
    weight, hessian = random_weight(4, 40), random_hessian(40)
    _, factor = prepare(weight, hessian, 0.01)
    assert factor is not None
    block = factor[8:24, 8:24]
    error = random_weight(4, 16, 3)
    expected = float((error**2 / block.diagonal() ** 2).sum())
    assert weighted_error(error, block) == pytest.approx(expected, rel=1e-5)
    # What is left of the whole error once the columns behind have made good what they can.
    rest = torch.cholesky_inverse(torch.linalg.cholesky(factor.T @ factor))[8:, 8:].double()
    inside, across, behind = rest[:16, :16], rest[:16, 16:], rest[16:, 16:]
    metric = inside - across @ torch.linalg.solve(behind, across.T)
    left = float(((error.double() @ metric) * error.double()).sum())
    assert joint_error(error, block) == pytest.approx(left, rel=1e-3)
    torch.testing.assert_close(block_metric(block), metric, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('width', [16, 17, 1])
@pytest.mark.parametrize('shared_mean', [True, False])
def test_each_refit_lowers_the_cost(width: int, shared_mean: bool) -> None:
    weight, hessian = random_weight(32, 24), random_hessian(24)
    _, factor = prepare(weight, hessian, 0.01)
    assert factor is not None
    metric = block_metric(factor[:width, :width])
    target = haar_columns(weight[:, :width])
    codes = [search_groups(b, GroupRule(shared_mean)) for b in split_bands(target)]

    def cost(rounds: int) -> float:
        refined = refine_codes(target, metric, codes, rounds, None) if rounds >= 0 else codes
        error = weight[:, :width] - haar_columns(join_bands([c.levels() for c in refined]))
        return float(((error.double() @ metric) * error.double()).sum())

    costs = [cost(rounds) for rounds in (-1, 0, 1, 2, 4)]
    slack = 1e-6 * costs[0] + 1e-9 * float((weight[:, :width].double() @ metric).norm())
    assert all(after <= before + slack for before, after in zip(costs, costs[1:], strict=False))
    if width > 1:
        assert costs[-1] < 0.8 * costs[0]
