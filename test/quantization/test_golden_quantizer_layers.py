# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Whole layers against the official HBLLM and BiLLM code, each case and each of its variants.

HBVLA_GOLDEN_QUANT_DIR names another folder of cases; its README states the tolerances.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods import billm, hbllm

OWN = Path(__file__).resolve().parents[1] / 'golden' / 'quantizer'
ROOT = Path(os.environ.get('HBVLA_GOLDEN_QUANT_DIR') or OWN)


def variants(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as arrays:
        return [name.removeprefix('What_') for name in arrays if name.startswith('What_')]


CASES = [
    (path, variant)
    for path in sorted(ROOT.glob('g*.npz'))
    if 'primitives' not in path.stem
    for variant in variants(path)
]


def quantize(variant: str, arrays: dict[str, Tensor]) -> QuantizedLayer:
    """Names are hb_<transform>_<partition>[_sm][_l1] and billm_<metric>."""
    kind, *words = variant.split('_')
    shared = {'damping': float(arrays['percdamp']), 'block_size': int(arrays['blocksize'])}
    if kind == 'billm':
        (metric,) = words
        options = billm.BillmOptions(salient_metric=metric, **shared)
        return billm.quantize(arrays['W'], arrays['H'], options)
    assert kind == 'hb'
    transform, partition, *flags = words
    assert set(flags) <= {'sm', 'l1', 'l2'}
    options = hbllm.HbllmOptions(
        transform=transform,
        partition=partition,
        shared_mean='sm' in flags,
        salient_norm='l1' if 'l1' in flags else 'l2',
        official_arithmetic=True,
        **shared,
    )
    return hbllm.quantize(arrays['W'], arrays['H'], options)


def test_golden_quantizer_cases_are_there() -> None:
    assert {path.stem[:2] for path, _ in CASES} == {'g1', 'g2', 'g3', 'g4', 'g5'}
    assert len(CASES) >= 30


@pytest.mark.parametrize(
    ('path', 'variant'), CASES, ids=[f'{path.stem}-{variant}' for path, variant in CASES]
)
def test_golden_quantizer_layer(path: Path, variant: str) -> None:
    with np.load(path, allow_pickle=False) as loaded:
        arrays = {name: torch.from_numpy(np.asarray(loaded[name])) for name in loaded}
    weight = arrays['W']
    ours = quantize(variant, arrays).reconstruct()
    expected = float(arrays[f'err_{variant}'][0])
    tolerance = 0.03 if variant.startswith('billm') else 0.02
    assert relative_error(weight, ours, arrays['C_test']) == pytest.approx(expected, rel=tolerance)
    if weight.shape[1] <= int(arrays['blocksize']):
        off = (ours - arrays[f'What_{variant}']).abs() > 0.01 * weight.abs().mean()
        assert float(off.float().mean()) <= 1e-3
