# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A synthetic layer."""

from __future__ import annotations

import pytest
import torch

from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> None:
    """These matrices are too small to share, and threads that wait for each other cost a lot."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def attention_layer() -> SyntheticLayer:
    """The ``attn_vo`` layer at half the spec's width, to be fast."""
    return make_layer('attn_vo', 512, 512, seed=1, tokens=4096)
