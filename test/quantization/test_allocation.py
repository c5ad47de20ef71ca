# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.allocation import allocate
from hbvla_ros.quantization.curves import Candidate, LayerCurve, measure_curve
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods.dbf import DbfOptions
from hbvla_ros.quantization.methods.rtn import RtnOptions
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer
from hbvla_ros.quantization.tiles import tile_rows

SIGNPLANE = METHODS['signplane']
QUICK = SignPlaneOptions(rounds=1, cycles=0)

point_lists = st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 100)), min_size=1, max_size=6)


def curves_of(points: list[list[tuple[int, float]]]) -> list[LayerCurve]:
    return [
        LayerCurve(
            f'layer{number}',
            10,
            80,
            tuple(Candidate({'place': i}, size, error) for i, (size, error) in enumerate(layer)),
        )
        for number, layer in enumerate(points)
    ]


def outcome(curves: list[LayerCurve], bits: float) -> tuple[int, float]:
    """Bytes and error of what is allocated."""
    chosen = allocate(curves, bits)
    picked = [curve.candidates[chosen[curve.name]['place']] for curve in curves]
    return sum(c.bytes for c in picked), sum(c.error for c in picked)


@settings(deadline=None)
@given(points=st.lists(point_lists, min_size=1, max_size=5), extra=st.floats(0, 30))
def test_the_budget_is_kept_and_more_bits_are_never_worse(
    points: list[list[tuple[int, float]]], extra: float
) -> None:
    curves = curves_of(points)
    least = sum(min(size for size, _ in layer) for layer in points)
    bits = 8 * least / (800 * len(curves)) * (1 + 1e-9)
    size, error = outcome(curves, bits)
    assert size == least
    more_size, more_error = outcome(curves, bits + extra)
    assert more_size <= (bits + extra) * 100 * len(curves)
    assert more_error <= error
    even_more = outcome(curves, bits + 1.5 * extra)[1]
    assert even_more <= more_error * (1 + 1e-9) + 1e-9
    best = sum(min(error for _, error in layer) for layer in points)
    assert outcome(curves, math.inf)[1] == pytest.approx(best)
    with pytest.raises(HbvlaError, match='ask for --bits'):
        allocate(curves, bits * (1 - 1e-6) - 1e-6)


def test_equal_steps_go_in_the_order_of_the_layers() -> None:
    curves = curves_of([[(100, 2.0), (200, 1.0)]] * 3)
    chosen = allocate(curves, 8 * 400 / 2400)
    assert [chosen[f'layer{number}']['place'] for number in range(3)] == [1, 0, 0]


def different_layers() -> dict[str, SyntheticLayer]:
    layers = {
        'first': make_layer('attn_qk', 256, 128, 0, 1500),
        'second': make_layer('mlp_down', 128, 200, 1, 1500),
        'third': make_layer('gauss_white', 300, 128, 2, 1500),
    }
    layers['third'].weight[128:256] *= 6
    return layers


def total_error(layers: dict[str, SyntheticLayer], options: dict[str, SignPlaneOptions]) -> float:
    total = 0.0
    for name, layer in layers.items():
        quantized = SIGNPLANE.quantize(layer.weight, layer.calibration, options[name])
        total += relative_error(layer.weight, quantized.reconstruct(), layer.calibration)
    return total


def test_a_shared_budget_beats_the_same_bits_for_all() -> None:
    layers = different_layers()
    curves = [
        measure_curve(name, layer.weight, layer.calibration, SIGNPLANE, QUICK)
        for name, layer in layers.items()
    ]
    weights = sum(layer.weight.numel() for layer in layers.values())
    uniform = dataclasses.replace(QUICK, planes=2)
    size = sum(
        uniform.stored_bytes(rows, columns, [2] * len(tile_rows(rows)))
        for rows, columns in (layer.weight.shape for layer in layers.values())
    )
    chosen = allocate(curves, 8 * size / weights)
    options = {name: dataclasses.replace(QUICK, **each) for name, each in chosen.items()}
    quantized = {
        name: SIGNPLANE.quantize(layer.weight, None, options[name])
        for name, layer in layers.items()
    }
    taken = sum(layer.stored_bytes() for layer in quantized.values())
    tile = 128 * (200 / 8 + 1)
    assert size - tile - 20 <= taken <= size
    same = total_error(layers, dict.fromkeys(layers, uniform))
    assert total_error(layers, options) < 0.9 * same


@pytest.mark.parametrize('kind', ['attn_vo', 'mlp_down'])
def test_estimates_are_near_what_the_layer_comes_to(kind: str) -> None:
    layer = make_layer(kind, 384, 128, 3, 1500)
    feedback = SignPlaneOptions(rounds=0, cycles=0)
    curve = measure_curve(kind, layer.weight, layer.calibration, SIGNPLANE, feedback)
    for candidate in curve.candidates:
        options = dataclasses.replace(feedback, **candidate.settings)
        quantized = SIGNPLANE.quantize(layer.weight, layer.calibration, options)
        assert quantized.stored_bytes() == candidate.bytes
        real = relative_error(layer.weight, quantized.reconstruct(), layer.calibration)
        assert candidate.error == pytest.approx(real, rel=0.2)
    assert len(curve.candidates) == 7


def test_widths_of_dbf_share_a_budget() -> None:
    layers = {
        'easy': make_layer('attn_qk', 96, 128, 0, 1500),
        'hard': make_layer('mlp_down', 128, 80, 1, 1500),
    }
    options = DbfOptions(steps=40, rounds=1)
    curves = [
        measure_curve(name, layer.weight, layer.calibration, METHODS['dbf'], options)
        for name, layer in layers.items()
    ]
    for bits in (1.3, 2.5):
        widths = {name: each['width'] for name, each in allocate(curves, bits).items()}
        taken, estimated = 0, 0.0
        for curve in curves:
            layer, width = layers[curve.name], widths[curve.name]
            fitted = dataclasses.replace(options, width=width)
            quantized = METHODS['dbf'].quantize(layer.weight, layer.calibration, fitted)
            error = relative_error(layer.weight, quantized.reconstruct(), layer.calibration)
            (candidate,) = (c for c in curve.candidates if c.settings['width'] == width)
            assert candidate.bytes == quantized.stored_bytes()
            assert 0.5 < error / candidate.error < 1.1
            taken += candidate.bytes
            estimated += candidate.error
        assert 0.94 * bits < 8 * taken / (96 * 128 + 128 * 80) <= bits
        per_weight = [
            widths[name] * sum(layer.weight.shape) / layer.weight.numel()
            for name, layer in layers.items()
        ]
        assert per_weight[0] < per_weight[1]


def test_curves_pass_through_json() -> None:
    layer = make_layer('attn_vo', 200, 64, 3, 1000)
    curve = measure_curve('x', layer.weight, layer.calibration, SIGNPLANE, QUICK, 2.0)
    assert LayerCurve.from_json(json.loads(json.dumps(curve.to_json()))) == curve
    plain = measure_curve('x', layer.weight, layer.calibration, SIGNPLANE, QUICK, 1.0)
    for ours, once in zip(curve.candidates, plain.candidates, strict=True):
        assert ours.error == pytest.approx(2 * once.error)


def test_layers_of_zeros_and_dead_inputs_have_curves() -> None:
    for weight, hessian in (
        (torch.zeros(130, 16), None),
        (torch.ones(130, 16), torch.zeros(16, 16)),
    ):
        curve = measure_curve('x', weight, hessian, SIGNPLANE, QUICK)
        assert all(candidate.error == 0 for candidate in curve.candidates)
        assert allocate([curve], 3.5)['x']['planes'] == 1


def test_methods_of_fixed_size_have_no_curve() -> None:
    with pytest.raises(HbvlaError, match='rtn has no sizes'):
        measure_curve('x', torch.ones(4, 4), None, METHODS['rtn'], RtnOptions())
