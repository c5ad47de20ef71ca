# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A synthetic layer, and the inputs of a block in a whole network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from hbvla_ros.quantization.capture import BlockInputs, Call
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.synthetic import SyntheticLayer, make_layer


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> None:
    """These matrices are too small to share, and threads that wait for each other cost a lot."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def attention_layer() -> SyntheticLayer:
    """The ``attn_vo`` layer at half the spec's width, to be fast."""
    return make_layer('attn_vo', 512, 512, seed=1, tokens=4096)


@pytest.fixture(scope='session')
def record_inputs() -> Callable[[nn.Module, str, Sequence[NetworkInputs]], BlockInputs]:
    """A function that runs a whole network and keeps what one of its blocks is called with."""

    def record(network: nn.Module, block: str, batches: Sequence[NetworkInputs]) -> BlockInputs:
        calls: list[Call] = []

        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append((args, kwargs))

        handle = network.get_submodule(block).register_forward_pre_hook(keep, with_kwargs=True)
        with torch.no_grad():
            for batch in batches:
                network(*batch.arguments())
        handle.remove()
        return BlockInputs(calls)

    return record


@pytest.fixture(scope='module')
def attention() -> SyntheticLayer:
    """A smaller one, for whole methods."""
    return make_layer('attn_vo', 256, 384, seed=1, tokens=3000)
