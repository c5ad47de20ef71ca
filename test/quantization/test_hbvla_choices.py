# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the choices of ``hbvla`` are worth in output error and bits, on small synthetic layers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hbvla_ros.packed.forms.grouped import GroupedLayer
from hbvla_ros.quantization.methods import hbllm, hbvla
from hbvla_ros.quantization.methods.hbvla_options import PRESETS, HbvlaOptions
from hbvla_ros.quantization.synthetic import (
    STRUCTURED_KINDS,
    SyntheticLayer,
    make_layer,
    output_error,
)

PARITY, RECOMMENDED, BEST = (PRESETS[name] for name in ('parity', 'recommended', 'best'))
DROP = HbvlaOptions(nonsalient='drop')


def grouped(weight: Tensor, hessian: Tensor | None, options: HbvlaOptions) -> GroupedLayer:
    layer = hbvla.quantize(weight, hessian, options)
    assert isinstance(layer, GroupedLayer)
    return layer


def stored_bits(layer: Any) -> float:
    return 8 * layer.stored_bytes() / layer.weights


def error_of(layer: SyntheticLayer, **changes: Any) -> float:
    options = dataclasses.replace(PARITY, **changes)
    return output_error(layer, grouped(layer.weight, layer.calibration, options).reconstruct())


def test_best_is_far_below_hbllm_at_no_more_bits() -> None:
    """Issue: at least 10 % lower in the geometric mean over the structured layers."""
    logs, bits = [], []
    for seed, kind in enumerate(STRUCTURED_KINDS):
        layer = make_layer(kind, 256, 384, seed=seed, tokens=2500)
        results = [
            hbllm.quantize(layer.weight, layer.calibration, hbllm.HbllmOptions()),
            *(grouped(layer.weight, layer.calibration, o) for o in (PARITY, RECOMMENDED, BEST)),
        ]
        logs.append([math.log(output_error(layer, q.reconstruct())) for q in results])
        bits.append([stored_bits(q) for q in results])
        assert max(bits[-1][2:]) < bits[-1][0], kind
    means = [math.exp(sum(column) / len(column)) for column in zip(*logs, strict=True)]
    hbllm_error, parity, recommended, best = means
    assert parity < 0.99 * hbllm_error
    assert recommended < 0.65 * hbllm_error
    assert best < 0.5 * hbllm_error


def test_each_recommendation_pays(attention: SyntheticLayer) -> None:
    """Spec section 6, small here: mean-abs and centred for free, exact feedback, drop for bits."""
    parity = error_of(attention)
    assert error_of(attention, scale='mean_abs') < 0.95 * parity
    assert error_of(attention, scale='mean_abs', centred=True) < 0.94 * parity
    assert error_of(attention, column_sort=True) < 0.85 * parity
    assert error_of(attention, perm='none') > 1.03 * parity
    assert error_of(attention, feedback='exact') < 1.01 * parity
    assert error_of(attention, feedback='none') > 1.1 * parity
    dropped = grouped(attention.weight, attention.calibration, DROP)
    assert stored_bits(dropped) < stored_bits(
        grouped(attention.weight, attention.calibration, PARITY)
    )
    assert output_error(attention, dropped.reconstruct()) < 1.1 * parity
    best, recommended = (
        grouped(attention.weight, attention.calibration, o) for o in (BEST, RECOMMENDED)
    )
    assert stored_bits(best) == stored_bits(recommended)
    assert output_error(attention, best.reconstruct()) < 0.85 * output_error(
        attention, recommended.reconstruct()
    )


@pytest.mark.parametrize(
    'changes',
    [
        {'norm': 'l1'},
        {'perm': 'none'},
        {'perm': 'layer'},
        {'perm': 'layer', 'chaining': False},
        {'perm_source': 'original'},
        {'salient_norm': 'l1'},
        {'saliency': 'inverse'},
        {'salient_shared_mean': True},
        {'shared_mean': False},
        {'candidates': 3},
        {'salient_search': 'error'},
        {'salient_code': 'planes'},
    ],
    ids=str,
)
def test_every_switch_does_something_and_nothing_terrible(
    changes: dict[str, Any], attention: SyntheticLayer
) -> None:
    plain = grouped(attention.weight, attention.calibration, PARITY)
    options = dataclasses.replace(PARITY, **changes)
    switched = grouped(attention.weight, attention.calibration, options)
    assert not torch.equal(switched.reconstruct(), plain.reconstruct())
    error = output_error(attention, switched.reconstruct())
    assert error == pytest.approx(output_error(attention, plain.reconstruct()), rel=0.25)
