# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbvla_ros.quantization.binary.blocks import (
    BlockResult,
    feedback_error,
    prepare,
    quantize_blocks,
)
from hbvla_ros.quantization.binary.code import PlaneCode
from hbvla_ros.quantization.binary.grouping import (
    GroupRule,
    best_threshold,
    code_groups,
    quantiles,
    search_groups,
    threshold_errors,
)
from hbvla_ros.quantization.binary.haar import haar_columns, haar_rows, join_bands, split_bands
from hbvla_ros.quantization.binary.parts import PartBuilder
from hbvla_ros.quantization.binary.residual import order2_error, residual_code
from hbvla_ros.quantization.binary.saliency import (
    fill_salient,
    other_columns,
    rank_columns,
    search_salient,
)

RULES = [
    GroupRule(shared, scale, partition, centred)
    for shared in (True, False)
    for scale in ('rms', 'mean_abs')
    for partition in ('row', 'global')
    for centred in (True, False)
]


def random_matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return values + 0.3 * torch.linspace(-1, 1, rows)[:, None]


def direct_error(values: Tensor, threshold: Tensor, rule: GroupRule) -> Tensor:
    """Error of the groups as they are coded, row by row."""
    distance = values - values.mean(dim=1, keepdim=True) if rule.centred else values
    code = code_groups(values, distance.abs() >= threshold, rule.shared_mean, rule.scale)
    return (values - code.levels()).square().sum(dim=1)


@pytest.mark.parametrize('rule', RULES, ids=str)
@pytest.mark.parametrize('columns', [1, 2, 7, 64])
def test_running_sums_find_what_a_direct_search_finds(rule: GroupRule, columns: int) -> None:
    values = random_matrix(24, columns)
    values[3] = 0.5  # a constant row
    values[4] = 0.0
    values[5, : columns // 2] = -values[5, columns - columns // 2 :]  # ties of magnitude
    grid = quantiles(values.abs(), 41)
    direct = torch.stack([direct_error(values, t[:, None], rule) for t in grid.T], dim=1)
    ours = threshold_errors(values, grid, rule)
    torch.testing.assert_close(ours, direct.double(), rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6),
        min_size=1,
        max_size=4,
    ),
    rule=st.sampled_from(RULES),
)
def test_running_sums_cope_with_ties(values: list[list[float]], rule: GroupRule) -> None:
    """Values on the threshold are sparse in both ways of counting."""
    matrix = torch.tensor(values)
    center = matrix.mean(dim=1, keepdim=True) if rule.centred else 0
    grid = (matrix - center).abs().sort(dim=1).values
    direct = torch.stack([direct_error(matrix, t[:, None], rule) for t in grid.T], dim=1)
    torch.testing.assert_close(
        threshold_errors(matrix, grid, rule), direct.double(), rtol=1e-4, atol=1e-4
    )


def test_each_row_gets_its_best_threshold_and_rows_that_share_one_the_best_of_all() -> None:
    values = random_matrix(10, 64)
    row = GroupRule()
    grid = quantiles(values.abs(), 41)
    direct = torch.stack([direct_error(values, t[:, None], row) for t in grid.T], dim=1)
    chosen = direct_error(values, best_threshold(values, row), row)
    torch.testing.assert_close(chosen, direct.min(dim=1).values, rtol=1e-5, atol=0)
    shared = GroupRule(partition='global')
    grid = quantiles(values.abs().reshape(1, -1), 81)[0]
    totals = torch.stack([direct_error(values, t, shared).sum() for t in grid])
    chosen = direct_error(values, best_threshold(values, shared), shared).sum()
    assert float(chosen) == pytest.approx(float(totals.min()), rel=1e-5)


def test_low_and_high_rows_share_thresholds_among_themselves_only() -> None:
    values = random_matrix(9, 32)
    values[1::2] *= 10
    rule = GroupRule(partition='global')
    threshold = best_threshold(values, rule, row_bands=2)
    assert len(threshold[0::2].unique()) == 1 and len(threshold[1::2].unique()) == 1
    torch.testing.assert_close(threshold[0::2], best_threshold(values[0::2], rule))
    assert best_threshold(values[:1], rule, row_bands=2).shape == (1, 1)


def test_mean_abs_scale_and_centred_threshold_lower_the_error() -> None:
    values = random_matrix(64, 64) + 0.8

    def error(rule: GroupRule) -> float:
        return float((values - search_groups(values, rule).levels()).square().sum())

    published = error(GroupRule())
    assert error(GroupRule(scale='mean_abs')) < published
    assert error(GroupRule(scale='mean_abs', centred=True)) < 0.9 * published


def test_codes_store_bits_even_where_the_sign_is_zero() -> None:
    code = search_groups(torch.full((2, 8), 0.25), GroupRule(shared_mean=False))
    assert set(code.planes.unique().tolist()) <= {-1, 1}
    torch.testing.assert_close(code.levels(), torch.full((2, 8), 0.25))


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (3, 5), (6, 4)])
def test_haar_is_orthonormal_and_its_own_inverse(shape: tuple[int, int]) -> None:
    values = random_matrix(*shape)
    for transform in (haar_columns, haar_rows):
        changed = transform(values)
        torch.testing.assert_close(transform(changed), values)
        torch.testing.assert_close(changed.norm(), values.norm())
    if shape[1] % 2:
        assert torch.equal(haar_columns(values)[:, -1], values[:, -1])
    bands = split_bands(values)
    assert all(band.shape[1] for band in bands)
    torch.testing.assert_close(join_bands(bands), values)


def test_order_two_is_two_binarizations_one_after_the_other() -> None:
    values = random_matrix(5, 20)
    first = residual_code(values, 1)
    second = residual_code(values - first.levels(), 1)
    both = residual_code(values, 2)
    torch.testing.assert_close(both.levels(), first.levels() + second.levels())
    error = (values - both.levels()).square().sum(dim=1)
    torch.testing.assert_close(order2_error(values.T), error)


def test_salient_search_tries_every_count_below_the_candidates() -> None:
    score = random_matrix(300, 20).square()
    score[:, [4, 9]] *= 30
    ranking = rank_columns(score, 'l2')
    assert set(ranking[:2].tolist()) == {4, 9}

    def error(count: int) -> float:
        parts = score[:, ranking[:count]], score[:, ranking[count:]]
        return sum(float((p - residual_code(p).levels()).square().sum()) for p in parts)

    best = min(range(1, 12), key=error)
    assert search_salient(score, 'l2', 12).tolist() == ranking[:best].tolist()
    assert len(search_salient(score, 'l2', 50)) < 20
    assert len(search_salient(score[:, :1], 'l2', 50)) == 0
    assert search_salient(torch.zeros(3, 4), 'l1', 50).tolist() == [0]


def test_filling_without_neighbours_takes_the_nearest_and_without_any_zero() -> None:
    block = torch.arange(12.0)[None].clone()
    wide = torch.arange(1, 11)
    filled = fill_salient(block, wide)
    assert filled[0].tolist() == [0] * 8 + [11] * 4  # 0 and 11 are left
    filled = fill_salient(block, torch.arange(0, 8))
    assert filled[0, :5].tolist() == [8] * 5  # none to the left
    assert filled[0, 7] == 9  # 8, 9, 10
    assert not fill_salient(block, torch.arange(12)).any()
    assert other_columns(wide, 12).tolist() == [0, 11]


@pytest.mark.parametrize('feedback', ['diagonal', 'exact'])
def test_blocks_feed_their_errors_to_the_columns_that_follow(feedback: str) -> None:
    """Against the minimizer: later columns move by what makes good the error most."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(200, 12, generator=generator)
    inputs[:, 6:] += inputs[:, :6]
    hessian = inputs.T @ inputs / 200
    weight = random_matrix(5, 12)
    prepared, factor = prepare(weight, hessian, 1e-6)
    seen = []

    def coarse(block: Tensor, corner: Tensor, start: int) -> BlockResult[int]:
        seen.append(block)
        torch.testing.assert_close(corner, factor[start : start + 4, start : start + 4])
        return BlockResult(block.round(), start)

    quantized, parts = quantize_blocks(prepared, factor, 4, coarse, feedback)
    assert parts == [0, 4, 8] and torch.equal(quantized, quantized.round())
    error = (weight - quantized)[:, :4]
    best = weight[:, 4:] + error @ hessian[:4, 4:] @ torch.linalg.inv(hessian[4:, 4:])
    moved = torch.linalg.norm(seen[1] - best[:, :4])
    assert (float(moved) < 1e-3) == (feedback == 'exact')
    assert float(moved) < float(torch.linalg.norm(weight[:, 4:8] - best[:, :4]))


def test_feedback_of_a_single_column_is_the_same_in_both_forms() -> None:
    error, corner = random_matrix(4, 1), torch.tensor([[0.7]])
    torch.testing.assert_close(
        feedback_error(error, corner, 'diagonal'), feedback_error(error, corner, 'exact')
    )


def test_white_inputs_get_an_identity_and_no_feedback() -> None:
    weight = random_matrix(3, 10)

    def keep(block: Tensor, corner: Tensor, start: int) -> BlockResult[int]:
        assert torch.equal(corner, torch.eye(block.shape[1]))
        assert torch.equal(block, weight[:, start : start + 4])
        return BlockResult(torch.zeros_like(block), block.shape[1])

    quantized, widths = quantize_blocks(*prepare(weight, None, 0.01), 4, keep)
    assert widths == [4, 4, 2] and not quantized.any()


def test_dead_inputs_lose_their_weights() -> None:
    hessian = torch.diag(torch.tensor([1.0, 0.0, 2.0]))
    prepared, factor = prepare(random_matrix(2, 3), hessian, 0.01)
    assert not prepared[:, 1].any() and prepared[:, 0].all()
    assert factor is not None and torch.isfinite(factor).all()


def test_builder_gathers_runs_and_bands_of_odd_widths() -> None:
    weight = random_matrix(4, 7)
    rule = GroupRule(shared_mean=False)
    builder = PartBuilder(7, rule.products, hadamard=2, bands=2)
    expected = []
    for start, stop in ((0, 4), (4, 6), (6, 7)):
        bands = split_bands(haar_columns(weight[:, start:stop]))
        codes = [search_groups(band, rule).rounded(torch.float16) for band in bands]
        builder.add(codes, torch.arange(start, stop))
        expected.append(haar_columns(join_bands([code.levels() for code in codes])))
    builder.add([], torch.arange(0))
    part = builder.build()
    assert part is not None and part.permutation is None and part.runs.tolist() == [4, 2, 1]
    torch.testing.assert_close(part.reconstruct(), torch.cat(expected, dim=1))
    assert PartBuilder(7, rule.products).build() is None


def test_rounding_keeps_coefficients_finite() -> None:
    code = PlaneCode(torch.ones(1, 1, 2, dtype=torch.int8), torch.tensor([[1e9]]), (1,))
    assert torch.isfinite(code.rounded(torch.float16).levels()).all()
    assert torch.equal(code.rounded(None).levels(), torch.full((1, 2), 1e9))
    assert torch.equal(code.scaled(0.5).levels(), torch.full((1, 2), 5e8))
