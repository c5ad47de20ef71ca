# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Activations block by block: the already quantized prefix feeds the next block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.quantization.calibration import NetworkInputs
from hbvla_ros.quantization.hessian import HessianAccumulator
from hbvla_ros.quantization.probe import TokenWeights

_Call = tuple[tuple[Any, ...], dict[str, Any]]


class BlockInputs:
    """The calls of the current block of a chain, one for each batch (and denoising step)."""

    def __init__(self, calls: list[_Call]) -> None:
        """Use :meth:`record`."""
        self._calls = calls

    @staticmethod
    def record(network: nn.Module, block: str, batches: Sequence[NetworkInputs]) -> BlockInputs:
        """Run the network and keep what its block is called with.

        Args:
            network: run as it is, quantized layers included.
            block: name of the first block of a chain.
            batches: calibration inputs.
        """
        calls: list[_Call] = []

        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append((args, kwargs))

        handle = network.get_submodule(block).register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with torch.no_grad():
                for batch in batches:
                    network(*batch.arguments())
        finally:
            handle.remove()
        return BlockInputs(calls)

    def hessians(
        self, network: nn.Module, block: str, names: Sequence[str], weights: TokenWeights | None
    ) -> dict[str, HessianAccumulator]:
        """Hessians of the block's linear layers, all from the block as it is now.

        Args:
            network: the network.
            block: name of the block.
            names: its linear layers.
            weights: token weights by layer and call, or None for ones.
        """
        totals: dict[str, HessianAccumulator] = {}
        counts = dict.fromkeys(names, 0)
        handles = []
        for name in names:
            linear = network.get_submodule(name)
            totals[name] = HessianAccumulator(int(linear.in_features))  # type: ignore[arg-type]

            def add(_module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                call = None if weights is None else weights[name][counts[name]]
                totals[name].add(args[0], call)
                counts[name] += 1

            handles.append(linear.register_forward_pre_hook(add))
        try:
            self._run(network.get_submodule(block))
        finally:
            for handle in handles:
                handle.remove()
        return totals

    def advance(self, network: nn.Module, block: str) -> None:
        """Replace the calls by those of the next block: outputs of this one, now quantized."""
        outputs = self._run(network.get_submodule(block))
        self._calls = [
            ((output, *args[1:]), kwargs)
            for output, (args, kwargs) in zip(outputs, self._calls, strict=True)
        ]

    def _run(self, block: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            return [block(*args, **kwargs) for args, kwargs in self._calls]
