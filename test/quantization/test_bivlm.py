# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.bits import unpack_signs
from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods.bivlm import (
    PRESETS,
    BivlmOptions,
    gaussian_sets,
    quantize,
)
from hbvla_ros.quantization.options import with_settings
from hbvla_ros.quantization.registry import find_method
from hbvla_ros.quantization.summaries import SUMMARIES


def random_weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def grouped(weight: Tensor, options: BivlmOptions = PRESETS['default']) -> GroupedLayer:
    layer = quantize(weight, None, options)
    assert isinstance(layer, GroupedLayer)
    return layer


def test_it_says_that_it_is_a_reconstruction() -> None:
    assert 'reconstruction' in SUMMARIES['bivlm']
    assert 'reconstruction' in (quantize.__globals__['__doc__'] or '')


@pytest.mark.parametrize('rho', [0.0, 0.01, 0.05, 0.3])
def test_sets_have_the_mass_of_their_quantiles(rho: float) -> None:
    sets = gaussian_sets(random_weight(512, 1024) + 0.01, rho)
    share = torch.bincount(sets.flatten().long(), minlength=3) / sets.numel()
    assert share.tolist() == pytest.approx([(1 - rho) / 2, (1 - rho) / 2, rho], abs=2e-3)


@pytest.mark.parametrize('rho', [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (3, 2), (7, 129), (300, 64)])
def test_levels_of_each_set(rho: float, shape: tuple[int, int]) -> None:
    """Mean and one scale in each inlier set, two scales in the outliers, nothing else."""
    weight = random_weight(*shape)
    layer = grouped(weight, BivlmOptions(rho=rho))
    layer.check('layer')
    rebuilt = layer.reconstruct()
    sets = gaussian_sets(weight, rho)
    for row in range(shape[0]):
        for number, most in enumerate((2, 2, 4)):
            levels = rebuilt[row][sets[row] == number].unique()
            assert len(levels) <= most
    inputs = random_weight(3, shape[1], 5)
    torch.testing.assert_close(layer.apply(inputs), inputs @ rebuilt.T, rtol=1e-4, atol=1e-6)
    again = layer_from_parts('layer', layer.form, layer.options(), layer.tensors())
    assert torch.equal(again.reconstruct(), rebuilt)


def test_membership_of_the_outliers_is_a_stored_bit() -> None:
    weight = random_weight(64, 512)
    layer = grouped(weight, BivlmOptions(rho=0.05))
    part = layer.parts['base']
    assert part.products == (0, 1, 5, 2, 6) and part.permutation is None
    outlier = gaussian_sets(weight, 0.05) == 2
    assert torch.equal(unpack_signs(part.planes, 512)[2] > 0, outlier)
    assert layer.stored_bytes() == 3 * 64 * 512 // 8 + 5 * 64 * 2 + 2
    assert layer.nominal_bits == pytest.approx(1 + float(outlier.float().mean()))


def test_error_on_gaussian_weights() -> None:
    """Without outliers the two sets are four levels with a fixed threshold: 0.138 when white."""
    weight = random_weight(256, 1024)
    errors = [
        relative_error(weight, grouped(weight, BivlmOptions(rho=rho)).reconstruct())
        for rho in (0.0, 0.01, 0.05)
    ]
    assert errors == pytest.approx([0.138, 0.112, 0.075], abs=0.003)


def test_turns_of_signs_and_scales_only_lower_the_error() -> None:
    weight = random_weight(96, 300).pow(3) * 1e3 + 0.002
    errors = [
        relative_error(weight, grouped(weight, BivlmOptions(rounds=rounds)).reconstruct())
        for rounds in (1, 2, 4, 8)
    ]
    assert errors[1] < 0.99 * errors[0]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(errors))


def test_constant_rows_zero_weights_and_any_scale() -> None:
    weight = random_weight(8, 48)
    weight[2], weight[3] = 0.7, 0.0
    rebuilt = grouped(weight).reconstruct()
    torch.testing.assert_close(rebuilt[2:4], weight[2:4], rtol=1e-3, atol=1e-3)
    assert not grouped(torch.zeros(4, 16)).reconstruct().any()
    plain = relative_error(random_weight(32, 64), grouped(random_weight(32, 64)).reconstruct())
    for scale in (1e-6, 1e6):
        scaled = random_weight(32, 64) * scale
        error = relative_error(scaled, grouped(scaled).reconstruct())
        assert error == pytest.approx(plain, rel=0.02)


def test_registered_with_a_ratio_for_the_vision_towers() -> None:
    method = find_method('bivlm')
    assert not method.needs_hessian and not method.two_hessians
    assert method.preset('default') == BivlmOptions(rho=0.01)
    assert method.preset('vision').rho == 0.05  # type: ignore[attr-defined]
    assert with_settings(PRESETS['default'], ['rho=0.02'], 'bivlm').rho == 0.02
    for setting in ('rho=1', 'rho=-0.1', 'rounds=0'):
        with pytest.raises(HbvlaError, match=setting.partition('=')[0]):
            with_settings(PRESETS['default'], [setting], 'bivlm')
