# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import torch

from hbvla_ros.quantization import signs as solver
from hbvla_ros.quantization.hessian import (
    HessianAccumulator,
    damped,
    feedback_factor,
    relative_error,
)


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
    hessian[4, :] = hessian[:, 4] = 0.0
    assert float(damped(hessian, 0.01).diagonal().min()) > 0
    assert float(hessian[4, 4]) == 0.0


def test_nearest_codes_are_the_nearest_of_all_levels() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 50, generator=generator)
    scales = torch.rand(3, 4, generator=generator)
    signs = solver.codes_to_signs(solver.nearest_codes(values, scales), 3)
    found = (signs * scales[..., None]).sum(dim=0)
    levels = torch.stack(
        [
            sum(s * scales[p] for p, s in enumerate(pattern))
            for pattern in itertools.product((1, -1), repeat=3)
        ]
    )
    best = (values[..., None] - levels.T[:, None, :]).abs().min(dim=-1).values
    torch.testing.assert_close((values - found).abs(), best)


def test_least_squares_scales_are_at_the_minimum() -> None:
    weight, hessian = problem()
    signs = torch.where(
        torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(5)) >= 0, 1.0, -1.0
    )
    scales = solver.least_squares_scales(weight, signs, hessian)
    best = energy(weight - (signs * scales[..., None]).sum(0), hessian)
    for shift in (-1e-2, 1e-2):
        for plane in range(2):
            moved = scales.clone()
            moved[plane] += shift
            assert (energy(weight - (signs * moved[..., None]).sum(0), hessian) > best).all()


def test_feedback_and_descent_lower_the_error_and_descent_ends_at_a_local_minimum() -> None:
    weight, hessian = problem(rows=20, columns=140)
    scales = solver.initial_scales(weight, 1)
    plain = solver.round_to_levels(weight, scales)
    levels = solver.error_feedback(weight, feedback_factor(hessian), scales)
    assert relative_error(weight, levels, hessian) < relative_error(weight, plain, hessian)
    previous = energy(weight - levels, hessian)
    for _ in range(30):
        levels = solver.coordinate_descent(weight, levels, hessian, scales)
        now = energy(weight - levels, hessian)
        assert (now <= previous * (1 + 1e-4)).all()
        previous = now
    for column in range(140):
        flipped = levels.clone()
        flipped[:, column] *= -1
        assert (energy(weight - flipped, hessian) >= previous * (1 - 1e-4)).all()
