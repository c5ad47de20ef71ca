# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The action probe of a network that does not fit into memory: one block at a time (spec 1.2).

The same figures as :mod:`hbvla_ros.quantization.probe_action`. All batches go forward block by
block, the inputs of every block are kept; then the gradients of the random projections of the
actions go back through the blocks in reverse order, each block being run once more to be
differentiated. What lies between the chains of blocks (patch embedding, projectors, embeddings,
head) is the network's own code, run with stand-ins for the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.calibration import NetworkInputs
from hbvla_ros.quantization.probe import kept_outputs, squared_norms
from hbvla_ros.quantization.probe_action import (
    ActionImportance,
    GradientRecord,
    random_projection,
)
from hbvla_ros.quantization.probe_options import ProbeOptions, in_tower
from hbvla_ros.quantization.targets import Chain, block_chains

# Activations and gradients by what they are: ('input', block, batch) or ('gradient', chain,
# batch, probe), ('output', chain, batch). A dict keeps them in memory.
Store = MutableMapping[tuple[str | int, ...], Tensor]
# Block name to a context in which the block has its full-precision weights.
Materialise = Callable[[str], AbstractContextManager[nn.Module]]


class _StandIn(nn.Module):
    """In the place of a chain's first block: notes its arguments, returns the chain's output."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Tensor | None = None
        self.arguments: tuple[Tensor, tuple[Any, ...]] | None = None

    def forward(self, hidden: Tensor, *rest: Any) -> Tensor:
        self.arguments = hidden, rest
        return hidden if self.output is None else self.output


class _PassOn(nn.Module):
    """In the place of the chain's other blocks."""

    def forward(self, hidden: Tensor, *_rest: Any) -> Tensor:
        return hidden


@dataclass(frozen=True)
class _Pass:
    """One run of what lies between the chains."""

    actions: Tensor
    inputs: list[Tensor]
    rest: list[tuple[Any, ...]]


@contextmanager
def _stand_ins(network: nn.Module, chains: Sequence[Chain]) -> Iterator[list[_StandIn]]:
    """Stand-ins for all blocks; the first ones of the chains."""
    first = [_StandIn() for _ in chains]
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


class StreamedProbe:
    """The forward and the backward sweep over one network."""

    def __init__(
        self,
        network: nn.Module,
        materialise: Materialise,
        batches: Sequence[NetworkInputs],
        options: ProbeOptions,
        store: Store,
        advance: Callable[[], None],
    ) -> None:
        """See :func:`streamed_action_importance`."""
        self._network, self._materialise = network, materialise
        self._batches, self._options = batches, options
        self._store, self._advance = store, advance
        self._chains = block_chains(network)
        self._rest: dict[tuple[int, int], tuple[Any, ...]] = {}

    def forward(self) -> None:
        """Keep the inputs of every block and the outputs of every chain."""
        for number, chain in enumerate(self._chains):
            for index in range(len(self._batches)):
                with torch.no_grad():
                    between = self._between(index, number)
                self._store['input', chain[0][0], index] = between.inputs[number]
                self._rest[number, index] = between.rest[number]
            for position, (block, _) in enumerate(chain):
                last = position + 1 == len(chain)
                with self._materialise(block) as module, torch.no_grad():
                    for index in range(len(self._batches)):
                        hidden = self._store['input', block, index]
                        output = module(hidden, *self._rest[number, index])
                        if last:
                            self._store['output', number, index] = output
                        else:
                            self._store['input', chain[position + 1][0], index] = output
                self._advance()

    def backward(self, record: GradientRecord, seed: int, types: Sequence[Tensor] | None) -> None:
        """Take the gradients back from the actions to the first blocks."""
        generator = torch.Generator().manual_seed(seed)
        for index in range(len(self._batches)):
            leaves: dict[int, Tensor] = {}
            with torch.enable_grad():
                between = self._between(index, len(self._chains), leaves)
            for probe in range(self._options.probes):
                direction = random_projection(between.actions, generator)
                self._spread(between.actions, direction, leaves, index, probe)
        for number, chain in reversed(list(enumerate(self._chains))):
            for block, linears in reversed(chain):
                self._back_through(number, block, linears, record, types)
                self._advance()
            self._to_earlier_chains(number)

    def _between(self, index: int, ready: int, leaves: dict[int, Tensor] | None = None) -> _Pass:
        """Run what lies between, with the outputs of the first ``ready`` chains.

        Args:
            index: batch.
            ready: number of chains whose outputs are known; the others return their inputs.
            leaves: filled with those outputs, to be differentiated by.
        """
        with _stand_ins(self._network, self._chains) as stand_ins:
            for number in range(ready):
                output = self._store['output', number, index]
                if leaves is not None:
                    output = leaves[number] = output.detach().requires_grad_()
                stand_ins[number].output = output
            actions = self._network(*self._batches[index].arguments())
            arguments = [one.arguments for one in stand_ins]
        found = [one for one in arguments if one is not None]
        return _Pass(actions, [hidden for hidden, _ in found], [rest for _, rest in found])

    def _spread(
        self, value: Tensor, gradient: Tensor, leaves: dict[int, Tensor], index: int, probe: int
    ) -> None:
        """Add a value's gradient to those of the chains' outputs that it depends on."""
        if not value.requires_grad:
            return
        found = torch.autograd.grad(
            value, list(leaves.values()), gradient, retain_graph=True, allow_unused=True
        )
        for number, one in zip(leaves, found, strict=True):
            key = ('gradient', number, index, probe)
            if one is not None:
                self._store[key] = self._store[key] + one if key in self._store else one

    def _back_through(
        self,
        number: int,
        block: str,
        linears: Sequence[str],
        record: GradientRecord,
        types: Sequence[Tensor] | None,
    ) -> None:
        """Gradients at the outputs of a block's layers, and at its input in place of its output."""
        probes = self._options.probes
        with self._materialise(block) as module:
            modules = {name: module.get_submodule(name[len(block) + 1 :]) for name in linears}
            for index, batch in enumerate(self._batches):
                samples = len(batch.pixel_values)
                key = ('input', block, index)
                hidden = self._store.pop(key).detach().requires_grad_()
                with torch.enable_grad(), kept_outputs(modules) as kept:
                    output = module(hidden, *self._rest[number, index])
                sums = [torch.zeros((), device=hidden.device)] * len(kept)
                for probe in range(probes):
                    place = ('gradient', number, index, probe)
                    gradient, *inner = torch.autograd.grad(
                        output,
                        [hidden, *(one for _, one in kept)],
                        self._store[place],
                        retain_graph=probe + 1 < probes,
                    )
                    self._store[place] = gradient
                    sums = [
                        total + squared_norms(one, samples) / probes
                        for total, one in zip(sums, inner, strict=True)
                    ]
                known = None if types is None or in_tower(block) else types[index]
                for (name, one), squared in zip(kept, sums, strict=True):
                    record.add(name, squared, one.shape[-1], known)

    def _to_earlier_chains(self, number: int) -> None:
        """From the gradient at a chain's input to those at the outputs of the chains before it."""
        for index in range(len(self._batches)):
            del self._store['output', number, index]
            gradients = [
                self._store.pop(('gradient', number, index, probe))
                for probe in range(self._options.probes)
            ]
            if not number:
                continue
            leaves: dict[int, Tensor] = {}
            with torch.enable_grad():
                between = self._between(index, number, leaves)
            for probe, gradient in enumerate(gradients):
                self._spread(between.inputs[number], gradient, leaves, index, probe)


def streamed_action_importance(
    network: nn.Module,
    materialise: Materialise,
    batches: Sequence[NetworkInputs],
    options: ProbeOptions,
    seed: int,
    store: Store | None = None,
    advance: Callable[[], None] | None = None,
    types: Sequence[Tensor] | None = None,
) -> ActionImportance:
    """Token weights and sensitivities of all layers with one block in memory at a time.

    Besides the block there are in memory: what is not in any block, one batch's activations
    inside the block, and the store, with the inputs of all blocks and ``probes`` gradients of
    one block's output for all batches.

    Args:
        network: everything outside the blocks has its weights; the blocks themselves may be on
            the meta device.
        materialise: gives a block its full-precision weights for a while.
        batches: calibration inputs.
        options: of the probe.
        seed: seed of the random projections.
        store: where activations and gradients go, None for memory; empty again afterwards.
        advance: called twice for each block.
        types: of each batch, the token type of each position of the decoder sequence (S,).

    Raises:
        HbvlaError: the network has no L1 head, or a gradient is not finite.
    """
    if network.config.head != 'l1':  # type: ignore[union-attr]
        raise HbvlaError(
            f'a {network.config.head} head: the action probe of a network that does not '  # type: ignore[union-attr]
            'fit into memory needs an L1 head; use --probe block'
        )
    chains = block_chains(network)
    record = GradientRecord([name for chain in chains for _, names in chain for name in names])
    probe = StreamedProbe(
        network, materialise, batches, options, {} if store is None else store,
        advance or (lambda: None),
    )  # fmt: skip
    probe.forward()
    probe.backward(record, seed, types)
    return record.importance(options)
