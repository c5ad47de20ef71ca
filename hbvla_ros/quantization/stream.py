# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A network of which one block at a time is in memory.

What lies between the chains of blocks (patch embedding, projectors, word embeddings, head) is
small, stays in memory and is the network's own code, run with stand-ins for the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.packed.install import replace_linear
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.targets import Chain, block_chains
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import assign, build_empty
from hbvla_ros.vla.network import OpenVLANetwork


class StreamedNetwork:
    """The inference network of a checkpoint; blocks have tensors only inside :meth:`block`.

    Attributes:
        network: everything outside the blocks has its tensors, the blocks are on the meta device.
        chains: all blocks in forward order: both towers, the decoder.
        device: where it computes.
        dtype: type of its parameters and activations.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Read what is outside the blocks.

        Args:
            checkpoint: opened full-precision folder.
            device: where to compute.
            dtype: type to compute in.
        """
        self._checkpoint = checkpoint
        self.device, self.dtype = torch.device(device), dtype
        network = build_empty(checkpoint.config, checkpoint.platform, inference_only=True)
        self.network: OpenVLANetwork = network.eval().requires_grad_(False)
        self.chains: list[Chain] = block_chains(self.network)
        self._layers: dict[str, Callable[[], QuantizedLayer]] = {}
        self._blocks = {block for chain in self.chains for block, _ in chain}
        inside = tuple(f'{block}.' for block in self._blocks)
        self._read([n for n, _ in self.network.named_parameters() if not n.startswith(inside)])

    @contextmanager
    def block(self, name: str) -> Iterator[nn.Module]:
        """A module of the network with its tensors, quantized where :meth:`install` said so.

        Args:
            name: a block, or a module outside of the blocks, which stays in memory anyway.
        """
        if name not in self._blocks:
            yield self.network.get_submodule(name)
            return
        module = self.network.get_submodule(name)
        empty = dict(module.named_parameters(prefix=name))
        linears = {
            f'{name}.{local}': child
            for local, child in module.named_modules()
            if isinstance(child, nn.Linear)
        }
        installed = [layer for layer in linears if layer in self._layers]
        try:
            self._read([n for n in empty if n.removesuffix('.weight') not in installed])
            for layer in installed:
                self._replace(layer)
            yield module
        finally:
            for layer, linear in linears.items():
                self.network.set_submodule(layer, linear)
            for parameter, tensor in empty.items():
                path, _, leaf = parameter.rpartition('.')
                setattr(self.network.get_submodule(path), leaf, tensor)

    def weight(self, name: str) -> Tensor:
        """The full-precision weight of a linear layer, float32 on the device."""
        weight = self._checkpoint.tensor(f'{name}.weight')
        weight = weight.to(device=self.device, dtype=torch.float32)
        self._checkpoint.release()
        return weight

    def install(self, name: str, load: Callable[[], QuantizedLayer]) -> None:
        """Run a linear layer in its quantized form from now on, also in the present block.

        Args:
            name: of the layer.
            load: gives the quantized layer, on the device, each time the block is entered.
        """
        self._layers[name] = load
        if not any(p.is_meta for p in self.network.get_submodule(name).parameters()):
            self._replace(name)

    def _replace(self, name: str) -> None:
        layer = self._layers[name]()
        replace_linear(self.network, name, layer, 'bf16', self.dtype)

    def _read(self, names: Sequence[str]) -> None:
        for name in names:
            tensor = self._checkpoint.tensor(name).to(device=self.device, dtype=self.dtype)
            assign(self.network, name, tensor)
            self.network.get_parameter(name).requires_grad_(False)
        self._checkpoint.release()


class Recorded(Exception):
    """A stand-in has seen what it was there for."""


class StandIn(nn.Module):
    """In the place of a chain's first block: notes its arguments, returns the chain's output.

    Attributes:
        output: what the chain puts out, None where that is not known: the input is passed on.
        stop: end the pass as soon as the arguments are noted.
        arguments: hidden state and further arguments of the last call.
    """

    def __init__(self) -> None:
        """Know nothing."""
        super().__init__()
        self.output: Tensor | None = None
        self.stop = False
        self.arguments: tuple[Tensor, tuple[Any, ...]] | None = None

    def forward(self, hidden: Tensor, *rest: Any) -> Tensor:
        """Note the arguments."""
        self.arguments = hidden, rest
        if self.stop:
            raise Recorded
        return hidden if self.output is None else self.output


class _PassOn(nn.Module):
    """In the place of the chain's other blocks."""

    def forward(self, hidden: Tensor, *_rest: Any) -> Tensor:
        return hidden


@contextmanager
def stand_ins(network: nn.Module, chains: Sequence[Chain]) -> Iterator[list[StandIn]]:
    """Stand-ins for all blocks of a network while the context lasts.

    Yields:
        Those of the first blocks of the chains.
    """
    first = [StandIn() for _ in chains]
    originals: dict[str, nn.Module] = {}
    try:
        for chain, stand_in in zip(chains, first, strict=True):
            for number, (block, _) in enumerate(chain):
                originals[block] = network.get_submodule(block)
                network.set_submodule(block, _PassOn() if number else stand_in)
        yield first
    finally:
        for block, module in originals.items():
            network.set_submodule(block, module)
