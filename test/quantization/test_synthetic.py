# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods.rtn import RtnOptions
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.synthetic import (
    KINDS,
    STRUCTURED_KINDS,
    make_layer,
    output_error,
)


def spread(values: torch.Tensor) -> float:
    """Standard deviation of the logarithm."""
    return float(values.log().std())


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('rows', 'columns'), [(48, 130), (130, 48)])
def test_layers_have_the_shape_asked_for_and_depend_on_the_seed(
    kind: str, rows: int, columns: int
) -> None:
    first, again, other = (make_layer(kind, rows, columns, s, 500) for s in (3, 3, 4))
    assert first.weight.shape == (rows, columns)
    assert first.calibration.shape == first.test.shape == (columns, columns)
    assert float(first.weight.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-4)
    for name in ('weight', 'calibration', 'test'):
        value = getattr(first, name)
        assert value.dtype == torch.float32 and bool(value.isfinite().all())
        assert torch.equal(value, getattr(again, name))
        assert not torch.equal(value, getattr(other, name))


@pytest.mark.parametrize('kind', KINDS)
def test_the_two_draws_differ_but_have_the_same_statistics(kind: str) -> None:
    layer = make_layer(kind, 64, 128, 0, 4000)
    alike = (layer.calibration * layer.test).sum()
    assert 0.9 < alike / (layer.calibration.norm() * layer.test.norm()) < 1 - 1e-6


def test_white_layer_has_no_structure() -> None:
    layer = make_layer('gauss_white', 256, 256, 0, 8000)
    assert relative_error(torch.eye(256), layer.test) < 0.05
    assert spread(layer.weight.norm(dim=1)) < 0.1
    assert 'gauss_white' not in STRUCTURED_KINDS and len(STRUCTURED_KINDS) == 5


@pytest.mark.parametrize('kind', STRUCTURED_KINDS)
def test_structured_layers_have_outlier_channels_and_unequal_rows(kind: str) -> None:
    layer = make_layer(kind, 512, 256, 0, 4000)
    sizes = layer.test.diagonal().sqrt().sort(descending=True).values
    assert sizes[1] > 2.5 * sizes[2:].median()
    assert 0.25 < spread(layer.weight.norm(dim=1)) < 0.5
    values = torch.linalg.eigvalsh(layer.test)
    assert values[-26:].sum() > 0.5 * values.sum()


def test_clustered_columns_point_in_few_directions() -> None:
    """Behind all scaling, each column has partners that share most of it."""

    def closest(kind: str) -> float:
        weight = make_layer(kind, 256, 128, 0, 500).weight
        directions = weight / weight.norm(dim=0)
        alike = (directions.T @ directions).abs().fill_diagonal_(0).max(dim=0).values
        return float(alike.median())

    assert closest('colclust') > 0.6 > 2 * closest('attn_vo')


def test_output_error_is_taken_on_the_held_out_tokens() -> None:
    layer = make_layer('attn_vo', 32, 48, 0, 500)
    assert output_error(layer, layer.weight) == 0.0
    assert output_error(layer, torch.zeros_like(layer.weight)) == pytest.approx(1.0)
    changed = layer.weight + 0.01
    error = changed - layer.weight
    expected = torch.trace(error @ layer.test @ error.T) / torch.trace(
        layer.weight @ layer.test @ layer.weight.T
    )
    assert output_error(layer, changed) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ('kind', 'low', 'high'),
    [('gauss_white', 0.35, 0.38), ('attn_qk', 0.5, 0.75), ('attn_vo', 0.4, 0.6)],
)
def test_sign_per_row_loses_what_the_spec_measured(kind: str, low: float, high: float) -> None:
    """Spec section 6: 0.363, 0.645 and 0.528 at 1024 x 1024; these layers are smaller."""
    layer = make_layer(kind, 512, 512, 0, 4096)
    quantized = METHODS['rtn'].quantize(layer.weight, None, RtnOptions())
    assert low < output_error(layer, quantized.reconstruct()) < high


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('attn', 8, 8, 0, 500), "'attn' is unknown; use one of gauss_white, attn_qk"),
        (('attn_vo', 0, 8, 0, 500), 'at least one row'),
        (('attn_vo', 8, 8, 0, 5), '100 tokens'),
    ],
)
def test_layers_that_cannot_be_made_are_refused(
    arguments: tuple[str, int, int, int, int], message: str
) -> None:
    with pytest.raises(HbvlaError, match=message):
        make_layer(*arguments)
