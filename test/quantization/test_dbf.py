# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import stored_bits_per_weight
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.quantization.factorization.admm import alternate
from hbvla_ros.quantization.factorization.descent import Descent, DoubleSigns
from hbvla_ros.quantization.factorization.start import EigenProblem, low_rank_start
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods.dbf import (
    DbfOptions,
    bytes_of_width,
    quantize,
    width_for_bytes,
)
from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer, output_error

FAST = DbfOptions(steps=20, rounds=2)


@pytest.fixture(scope='module')
def layer() -> SyntheticLayer:
    return make_layer('attn_vo', 256, 256, seed=1, tokens=2048)


def random_matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def random_hessian(columns: int, seed: int = 7) -> torch.Tensor:
    inputs = random_matrix(400, columns, seed) * torch.linspace(0.3, 3, columns)
    return inputs.T @ inputs / len(inputs)


def quantized(
    weight: torch.Tensor, hessian: torch.Tensor | None, options: DbfOptions
) -> FactoredLayer:
    result = quantize(weight, hessian, options)
    assert isinstance(result, FactoredLayer)
    result.check('layer')
    assert bool(result.reconstruct().isfinite().all())
    return result


@pytest.mark.parametrize('scale_bits', [8, 16])
@pytest.mark.parametrize('shape', [(64, 64), (48, 200), (33, 77), (130, 21)])
@pytest.mark.parametrize('bits', [0.8, 1.7, 2.5])
def test_width_is_the_largest_within_the_budget(
    shape: tuple[int, int], bits: float, scale_bits: int
) -> None:
    budget = int(bits * shape[0] * shape[1] / 8)
    width = width_for_bytes(*shape, budget, scale_bits)
    assert bytes_of_width(*shape, width, scale_bits) <= budget or width == 0
    assert bytes_of_width(*shape, width + 1, scale_bits) > budget


def test_stored_bytes_are_those_of_the_file() -> None:
    for scale_bits in (8, 16):
        options = dataclasses.replace(FAST, width=37, steps=2, scale_bits=scale_bits)
        layer = quantized(random_matrix(45, 83), None, options)
        assert layer.width == 37
        assert layer.stored_bytes() == bytes_of_width(45, 83, 37, scale_bits)


@pytest.mark.parametrize('bits', [1.05, 1.3, 2.05])
def test_the_budget_is_met_and_never_exceeded(bits: float) -> None:
    options = dataclasses.replace(FAST, stored_bits=bits, steps=2)
    stored = stored_bits_per_weight([quantized(random_matrix(256, 192), None, options)])
    assert bits - 0.08 < stored <= bits


def test_a_budget_for_nothing_is_refused() -> None:
    with pytest.raises(HbvlaError, match=r'stored_bits 0\.01: dbf takes at least 0\.\d+'):
        quantize(random_matrix(64, 64), None, DbfOptions(stored_bits=0.01))


@pytest.mark.parametrize(
    'setting', [{'width': -1}, {'steps': 0}, {'rounds': -1}, {'hadamard': 3}, {'hadamard': 0}]
)
def test_impossible_options_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        DbfOptions(**setting)  # type: ignore[arg-type]


def test_errors_fall_with_the_bits_as_the_spec_measured(layer: SyntheticLayer) -> None:
    """Spec section 6, attn_vo at four times the width: 0.138, 0.107, 0.060; sign plane 0.185."""
    errors = []
    for bits in (1.05, 1.3, 2.05):
        options = DbfOptions(stored_bits=bits, steps=60, rounds=2)
        stored = quantized(layer.weight, layer.calibration, options)
        errors.append(output_error(layer, stored.reconstruct()))
    assert errors[0] < 0.17 and errors[1] < 0.13 and errors[2] < 0.07


def test_more_steps_are_better(layer: SyntheticLayer) -> None:
    errors = [
        output_error(
            layer,
            quantized(
                layer.weight, layer.calibration, dataclasses.replace(FAST, steps=steps)
            ).reconstruct(),
        )
        for steps in (10, 40)
    ]
    assert errors[1] < 0.95 * errors[0]


def test_rounds_of_descent_help(layer: SyntheticLayer) -> None:
    """They also fit the column scale to the signs found."""
    errors = [
        relative_error(
            layer.weight,
            quantized(
                layer.weight, layer.calibration, dataclasses.replace(FAST, rounds=rounds)
            ).reconstruct(),
            layer.calibration,
        )
        for rounds in (0, 3)
    ]
    assert errors[1] < 0.995 * errors[0]


def test_the_full_hessian_matters(layer: SyntheticLayer) -> None:
    blind = quantized(layer.weight, None, FAST).reconstruct()
    seeing = quantized(layer.weight, layer.calibration, FAST).reconstruct()
    assert output_error(layer, seeing) < 0.7 * output_error(layer, blind)


@pytest.mark.parametrize(
    'shape', [(64, 172), (172, 64), (72, 269), (1, 40), (40, 1), (3, 5), (131, 67)]
)
@pytest.mark.parametrize('hadamard', [1, 128])
def test_any_shape(shape: tuple[int, int], hadamard: int) -> None:
    weight, hessian = random_matrix(*shape), random_hessian(shape[1])
    options = DbfOptions(width=max(shape), hadamard=hadamard, steps=20, rounds=1)
    result = quantized(weight, hessian, options)
    assert relative_error(weight, result.reconstruct(), hessian) < 0.4


def test_the_stored_layer_applies_as_it_reconstructs() -> None:
    layer = quantized(random_matrix(40, 56), random_hessian(56), FAST)
    inputs = random_matrix(7, 56, 3)
    torch.testing.assert_close(
        layer.apply(inputs), inputs @ layer.reconstruct().T, rtol=1e-5, atol=1e-5
    )


def test_dead_inputs_and_constant_rows() -> None:
    weight, hessian = random_matrix(48, 64), random_hessian(64)
    hessian[:, 10:20] = 0
    hessian[10:20] = 0
    weight[3], weight[4] = 0.0, 0.25
    weight[:, 30] = 0.0
    layer = quantized(weight, hessian, dataclasses.replace(FAST, width=40))
    found = layer.reconstruct()
    assert float(found[3].abs().max()) < 1e-3 * float(weight.abs().max())
    assert relative_error(weight, found, hessian) < 0.5


@pytest.mark.parametrize('value', [0.0, 0.5])
def test_a_constant_weight_comes_back(value: float) -> None:
    weight, hessian = torch.full((24, 32), value), random_hessian(32)
    options = dataclasses.replace(FAST, width=8, hadamard=1)
    plain = quantized(weight, hessian, options).reconstruct()
    assert float((plain - weight).abs().max()) <= 0.05 * value
    turned = quantized(weight, hessian, dataclasses.replace(options, hadamard=32)).reconstruct()
    assert relative_error(weight, turned, hessian) < 0.05


def test_inputs_that_never_move_at_all() -> None:
    layer = quantized(
        random_matrix(16, 24), torch.zeros(24, 24), dataclasses.replace(FAST, width=9)
    )
    assert float(layer.reconstruct().abs().max()) == 0.0


def test_same_seed_same_bytes() -> None:
    weight, hessian = random_matrix(40, 48), random_hessian(48)
    first, second, other = (
        quantized(weight, hessian, dataclasses.replace(FAST, seed=seed)).tensors()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first['inner'], other['inner'])


def test_start_is_the_best_of_its_rank() -> None:
    weight = random_matrix(30, 6) @ random_matrix(6, 50, 1)
    problem = EigenProblem.of(weight, random_hessian(50))
    generator = torch.Generator().manual_seed(0)
    for width in (6, 40):
        first, second = low_rank_start(problem, width, generator)
        assert first.shape == (30, width) and second.shape == (width, 50)
        assert problem.error(first @ second) < 1e-5


def test_factors_are_signs_times_scales() -> None:
    problem = EigenProblem.of(random_matrix(20, 28), random_hessian(28))
    outer, inner = alternate(problem, 12, 5, torch.Generator().manual_seed(0))
    assert int(torch.linalg.matrix_rank(outer.abs())) == 1
    torch.testing.assert_close(inner.abs(), inner[:, :1].abs().expand_as(inner))
    split = DoubleSigns.of(outer, inner)
    torch.testing.assert_close(split.levels(), outer @ inner, rtol=1e-4, atol=1e-5)


def test_descent_never_goes_up() -> None:
    weight, hessian = random_matrix(40, 64), random_hessian(64)
    factors = alternate(EigenProblem.of(weight, hessian), 32, 5, torch.Generator().manual_seed(0))
    descent = Descent(DoubleSigns.of(*factors), weight, hessian)
    errors = [descent.error()]
    for _ in range(3):
        for step in (descent.fit_inner_scales, descent.sweep_outer, descent.sweep_inner):
            step()
            errors.append(descent.error())
    assert all(b <= a + 1e-6 for a, b in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 0.9 * errors[0]
    expected = relative_error(weight, descent.signs.levels(), hessian)
    assert descent.error() == pytest.approx(expected, rel=1e-4)
