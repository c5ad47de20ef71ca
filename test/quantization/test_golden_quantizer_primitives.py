# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The pieces of the binary formats against what the official code computes from the same inputs.

HBVLA_GOLDEN_QUANT_DIR names another folder of cases. The README there asks for 1e-5 relative.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hbvla_ros.quantization.binary.grouping import GroupRule, best_threshold, search_groups
from hbvla_ros.quantization.binary.haar import (
    OFFICIAL_INVERSE,
    haar_columns,
    haar_rows,
    join_bands,
    split_bands,
)
from hbvla_ros.quantization.binary.residual import residual_code
from hbvla_ros.quantization.binary.saliency import fill_salient, search_salient

OWN = Path(__file__).resolve().parents[1] / 'golden' / 'quantizer'
ROOT = Path(os.environ.get('HBVLA_GOLDEN_QUANT_DIR') or OWN)


@pytest.fixture(scope='module')
def golden() -> dict[str, Tensor]:
    with np.load(ROOT / 'g6_primitives.npz', allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def check(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_golden_quantizer_row_haar(golden: dict[str, Tensor]) -> None:
    transformed = haar_columns(golden['Z'])
    low, high = split_bands(transformed)
    check(low, golden['row_lo'])
    check(high, golden['row_hi'])
    back = haar_columns(join_bands([golden['row_lo'], golden['row_hi']]))
    check(back * OFFICIAL_INVERSE, golden['row_inv'])
    check(back, golden['Z'])


def test_golden_quantizer_column_haar(golden: dict[str, Tensor]) -> None:
    transformed = haar_rows(golden['Z'])
    check(transformed[0::2], golden['col_lo'])
    check(transformed[1::2], golden['col_hi'])
    check(haar_rows(transformed) * OFFICIAL_INVERSE, golden['col_inv'])


@pytest.mark.parametrize(
    ('name', 'rule'),
    [
        ('shared_mean', GroupRule(shared_mean=True)),
        ('own_mean', GroupRule(shared_mean=False)),
        ('global', GroupRule(shared_mean=False, partition='global')),
    ],
)
def test_golden_quantizer_group_split(
    golden: dict[str, Tensor], name: str, rule: GroupRule
) -> None:
    values = golden['Z']
    expected = golden[f'split_{name}_thr'].reshape(-1, 1).expand(len(values), 1)
    check(best_threshold(values, rule), expected)
    check(search_groups(values, rule).levels(), golden[f'split_{name}_q'])


def test_golden_quantizer_fill(golden: dict[str, Tensor]) -> None:
    check(fill_salient(golden['fill_in'], golden['fill_cols']), golden['fill_out'])


@pytest.mark.parametrize('norm', ['l1', 'l2'])
def test_golden_quantizer_salient_search(golden: dict[str, Tensor], norm: str) -> None:
    chosen = search_salient(golden['sal_score'], norm, 50)
    assert chosen.sort().values.tolist() == golden[f'sal_{norm}_cols'].sort().values.tolist()


def test_golden_quantizer_residual(golden: dict[str, Tensor]) -> None:
    """The mask picks other columns in each row, so the rows are coded one by one."""
    values, mask = golden['Z'], golden['resid_mask']
    ours = torch.zeros_like(values)
    for row in range(len(values)):
        chosen = mask[row]
        ours[row, chosen] = residual_code(values[row : row + 1, chosen]).levels()[0]
    check(ours, golden['resid_order2'])
