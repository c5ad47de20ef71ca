# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Activations block by block: the already quantized prefix feeds the next block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.quantization.activations import ActivationCache
from hbvla_ros.quantization.hessian import HessianAccumulator
from hbvla_ros.quantization.probe import TokenWeights

Call = tuple[tuple[Any, ...], dict[str, Any]]


class BlockInputs:
    """The calls of the current block of a chain, one for each batch (and denoising step)."""

    def __init__(self, calls: Iterable[Call], cache: ActivationCache | None = None) -> None:
        """Keep the calls.

        Args:
            calls: (arguments, keyword arguments) of each; the first argument is the hidden state,
                the others are the same for all blocks of the chain.
            cache: keeps the hidden states; None for memory.
        """
        self._cache = cache or ActivationCache()
        self._calls = [((self._cache.put(args[0]), *args[1:]), kwargs) for args, kwargs in calls]

    def __len__(self) -> int:
        """Number of calls."""
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        """The calls one after the other, on the device."""
        for args, kwargs in self._calls:
            yield (self._cache.get(args[0]), *args[1:]), kwargs

    def hessians(
        self,
        network: nn.Module,
        block: str,
        names: Sequence[str],
        weights: TokenWeights | None = None,
    ) -> dict[str, HessianAccumulator]:
        """Hessians of the block's linear layers, all from the block as it is now.

        Args:
            network: the network.
            block: name of the block.
            names: its linear layers.
            weights: token weights by layer and call; layers that are not in it, or all of them
                with None, weigh every token one.

        Returns:
            Layer name to its accumulator; layers with the same inputs and weights share one.
        """
        recorder = _HessianRecorder(names, weights or {})
        handles = []
        for name in names:
            linear = network.get_submodule(name)
            handles.append(linear.register_forward_pre_hook(recorder.hook(name)))
        try:
            for _ in self._run(network.get_submodule(block)):
                recorder.end_call()
        finally:
            for handle in handles:
                handle.remove()
        return recorder.totals

    def advance(self, network: nn.Module, block: str) -> None:
        """Replace the calls by those of the next block: outputs of this one, now quantized."""
        for number, output in enumerate(self._run(network.get_submodule(block))):
            args, kwargs = self._calls[number]
            self._calls[number] = ((self._cache.replace(args[0], output), *args[1:]), kwargs)

    def hidden(self) -> list[Tensor]:
        """The first arguments of all calls, as they are kept."""
        return [args[0] for args, _ in self._calls]

    def _run(self, block: nn.Module) -> Iterator[Tensor]:
        for args, kwargs in self:
            with torch.no_grad():
                output = block(*args, **kwargs)
            yield output


class _HessianRecorder:
    """Sums the Hessians of linear layers, once for those that share their inputs.

    Attributes:
        totals: layer name to its accumulator.
    """

    def __init__(self, names: Sequence[str], weights: TokenWeights) -> None:
        self.totals: dict[str, HessianAccumulator] = {}
        self._weights = weights
        self._counts = dict.fromkeys(names, 0)
        self._owners: dict[str, str] = {}
        self._present: list[tuple[Tensor, str]] = []

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """What is to be called before each call of a layer."""

        def add(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._add(name, args[0])

        return add

    def end_call(self) -> None:
        """A call of the block is over: its tensors are not compared with those of the next."""
        self._present.clear()

    def _add(self, name: str, inputs: Tensor) -> None:
        if name not in self._owners:
            self._owners[name] = self._find_owner(name, inputs)
        owner = self._owners[name]
        if owner != name:
            self.totals[name] = self.totals[owner]
            return
        self._present.append((inputs, name))
        if name not in self.totals:
            self.totals[name] = HessianAccumulator(inputs.shape[-1], inputs.device)
        call = self._weights[name][self._counts[name]] if name in self._weights else None
        self._counts[name] += 1
        self.totals[name].add(inputs, None if call is None else call.to(inputs.device))

    def _find_owner(self, name: str, inputs: Tensor) -> str:
        """The layer whose sum serves this one as well; the layer itself if there is none."""
        for tensor, other in self._present:
            if tensor is inputs and name not in self._weights and other not in self._weights:
                return other
        return name
