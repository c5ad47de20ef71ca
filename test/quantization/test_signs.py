# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest
import torch

from hbvla_ros.quantization.column_basis import principal_signs, refit_scale
from hbvla_ros.quantization.hessian import (
    HessianAccumulator,
    damped,
    error_factor,
    feedback_factor,
    relative_error,
)
from hbvla_ros.quantization.sign_search import Kicks, SignSearch
from hbvla_ros.quantization.signs import Rounder, combine, error_feedback, initial_scales


def problem(rows: int = 6, columns: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(rows, columns, generator=generator)
    mixing = torch.randn(columns, columns, generator=generator)
    return weight, mixing @ mixing.T + 0.1 * torch.eye(columns)


def energy(error: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    return ((error @ hessian) * error).sum(dim=1)


def test_streaming_hessian_is_the_weighted_mean_of_outer_products() -> None:
    tokens = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(50, generator=torch.Generator().manual_seed(1))
    accumulator = HessianAccumulator(8)
    accumulator.add(tokens[:20].reshape(4, 5, 8), weights[:20])
    accumulator.add(tokens[20:], weights[20:])
    expected = (tokens * weights[:, None]).T @ tokens / 50
    torch.testing.assert_close(accumulator.mean(), expected)
    assert accumulator.tokens == 50


def test_feedback_factor_inverts_and_damping_raises_dead_inputs() -> None:
    _, hessian = problem()
    factor = feedback_factor(hessian)
    torch.testing.assert_close(factor.T @ factor @ hessian, torch.eye(10), rtol=1e-3, atol=1e-3)
    assert torch.equal(factor, factor.triu())
    root = error_factor(hessian)
    torch.testing.assert_close(root @ root.T, hessian, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(root @ factor, torch.eye(10), rtol=1e-3, atol=1e-3)
    hessian[4, :] = hessian[:, 4] = 0.0
    assert float(damped(hessian, 0.01).diagonal().min()) > 0
    assert float(hessian[4, 4]) == 0.0


@pytest.mark.parametrize('planes', [1, 2, 3])
def test_rounding_finds_the_nearest_of_all_levels_and_their_signs(planes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 4, generator=generator)
    scales = torch.randn(planes, 4, generator=generator)
    rounder = Rounder(scales)
    found = rounder.nearest(values)
    levels = torch.stack(
        [
            sum(s * scales[p] for p, s in enumerate(pattern))  # type: ignore[misc]
            for pattern in itertools.product((1, -1), repeat=planes)
        ]
    )
    best = (values[:, None] - levels).abs().min(dim=1).values
    torch.testing.assert_close((values - found).abs(), best)
    signs = rounder.signs(found)
    assert set(signs.unique().tolist()) <= {-1.0, 1.0}
    torch.testing.assert_close(combine(signs, scales), found)


def search_problem(
    rows: int, columns: int, planes: int
) -> tuple[torch.Tensor, torch.Tensor, SignSearch]:
    weight, hessian = problem(rows, columns)
    scales = initial_scales(weight, planes)
    levels = error_feedback(weight.T[None], error_factor(hessian)[None], scales)[0]
    energies = energy(weight, hessian).double()
    search = SignSearch(Rounder(scales).signs(levels), scales, energies)
    search.move((weight @ hessian).T.contiguous(), [hessian[None]])
    return weight, hessian, search


def test_fitted_scales_are_at_the_minimum() -> None:
    weight, hessian, search = search_problem(6, 10, 2)
    search.fit_scales()
    best = energy(weight - search.levels().T, hessian)
    torch.testing.assert_close(search.errors().float(), best, rtol=1e-3, atol=1e-3)
    for shift in (-1e-2, 1e-2):
        for plane in range(2):
            moved = search.scales.clone()
            moved[plane] += shift
            assert (energy(weight - combine(search.signs, moved).T, hessian) > best).all()


def test_feedback_is_the_same_with_either_factor() -> None:
    """The textbook form divides by the Cholesky factor of the inverse Hessian."""
    weight, hessian = problem(rows=20, columns=140)
    scales = initial_scales(weight, 1)
    ours = error_feedback(weight.T[None], error_factor(hessian)[None], scales)[0].T
    rest, factor = weight.double(), feedback_factor(hessian).double()
    expected = torch.empty_like(rest)
    for j in range(140):
        expected[:, j] = torch.copysign(scales[0].double(), rest[:, j])
        error = (rest[:, j] - expected[:, j]) / factor[j, j]
        rest = rest - error[:, None] * factor[j] * (torch.arange(140) >= j)
    # One rounding error can turn a sign, and with it all that follows in its row.
    same = (ours == expected.float()).all(dim=1)
    assert float(same.float().mean()) > 0.7
    assert relative_error(weight, ours, hessian) == pytest.approx(
        relative_error(weight, expected.float(), hessian), rel=0.02
    )


@pytest.mark.parametrize('planes', [1, 2])
def test_sweeps_lower_the_error_to_a_local_minimum(planes: int) -> None:
    weight, hessian, search = search_problem(20, 140, planes)
    rounded = Rounder(search.scales).nearest(weight.T).T
    assert float(search.errors().sum()) < float(energy(weight - rounded, hessian).sum())
    previous = search.errors()
    for _ in range(40):
        search.sweep()
        now = search.errors()
        assert (now <= previous * (1 + 1e-4)).all()
        previous = now
    for column in range(140):
        for plane in range(planes):
            flipped = search.signs.clone()
            flipped[plane, column] *= -1
            changed = energy(weight - combine(flipped, search.scales).T, hessian)
            assert (changed >= previous * (1 - 1e-4)).all()


@pytest.mark.parametrize('planes', [1, 2])
def test_kicks_leave_local_minima_and_are_taken_back_where_they_do_not_help(planes: int) -> None:
    weight, hessian, search = search_problem(40, 300, planes)
    for _ in range(20):
        search.sweep()
    before = search.errors()
    generator = torch.Generator().manual_seed(0)
    search.sweep(Kicks(3, 30.0, generator))
    wild = search.errors()
    assert (wild <= before * (1 + 1e-5)).all()
    for _ in range(5):
        search.sweep(Kicks(4, 0.3, generator))
    assert float(search.errors().sum()) < 0.98 * float(before.sum())
    torch.testing.assert_close(
        search.errors().float(), energy(weight - search.levels().T, hessian), rtol=1e-3, atol=1e-3
    )


def test_column_scale_refit_is_at_the_minimum() -> None:
    weight, hessian, search = search_problem(30, 40, 1)
    basis = search.levels().T
    scale = refit_scale(basis, weight, hessian, weight @ hessian, torch.ones(40))
    best = energy(weight - basis * scale, hessian).sum()
    for column in range(40):
        for shift in (-1e-2, 1e-2):
            moved = scale.clone()
            moved[column] += shift
            assert energy(weight - basis * moved, hessian).sum() > best


def test_principal_signs_point_one_way() -> None:
    generator = torch.Generator().manual_seed(2)
    flips = torch.where(torch.rand(30, generator=generator) < 0.5, -1.0, 1.0)
    inputs = torch.randn(500, 30, generator=generator) + 2 * torch.randn(500, 1) * flips
    found = principal_signs(inputs.T @ inputs / 500) * flips
    assert abs(float(found.sum())) == 30
