# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The action probe of a network that does not fit into memory: one block at a time (spec 1.2).

The same figures as :mod:`hbvla_ros.quantization.probe_action`. All batches go forward block by
block, the inputs of every block are kept; then the gradients of the random projections of the
actions go back through the blocks in reverse order, each block being run once more to be
differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.activations import ActivationCache
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.probe import kept_outputs, squared_norms
from hbvla_ros.quantization.probe_action import (
    ActionImportance,
    GradientRecord,
    random_projection,
)
from hbvla_ros.quantization.probe_options import ProbeOptions, in_decoder
from hbvla_ros.quantization.stream import StreamedNetwork, stand_ins


class _Between(NamedTuple):
    """One batch's pass through what lies between the chains: a graph from outputs to inputs.

    Attributes:
        actions: what the network puts out.
        inputs: hidden state that each chain is called with.
        rest: the further arguments of each chain.
        outputs: the known outputs of the chains, which the others depend on.
        kept: outputs of the layers that lie between, with their names.
    """

    actions: Tensor
    inputs: list[Tensor]
    rest: list[tuple[Any, ...]]
    outputs: list[Tensor]
    kept: list[tuple[str, Tensor]]


class _StreamedProbe:
    """The forward and the backward sweep over one network."""

    def __init__(
        self,
        stream: StreamedNetwork,
        batches: Sequence[NetworkInputs],
        outside: Sequence[str],
        probes: int,
        cache: ActivationCache,
        advance: Callable[[], None],
    ) -> None:
        self._stream, self._batches, self._probes = stream, batches, probes
        self._outside = {name: stream.network.get_submodule(name) for name in outside}
        self._cache, self._advance = cache, advance
        # By block and batch; chain and batch; chain and batch; chain, batch and probe.
        self._inputs: dict[tuple[str, int], Tensor] = {}
        self._rest: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._outputs: dict[tuple[int, int], Tensor] = {}
        self._gradients: dict[tuple[int, int, int], Tensor] = {}

    def forward(self) -> None:
        """Keep the inputs of every block and the outputs of every chain."""
        for number, chain in enumerate(self._stream.chains):
            hidden: list[Tensor] = []
            for index in range(len(self._batches)):
                with torch.no_grad():
                    between = self._between(index, number)
                hidden.append(self._cache.put(between.inputs[number]))
                self._rest[number, index] = between.rest[number]
            for block, _ in chain:
                with self._stream.block(block) as module, torch.no_grad():
                    for index, kept in enumerate(hidden):
                        self._inputs[block, index] = kept
                        output = module(self._cache.get(kept), *self._rest[number, index])
                        hidden[index] = self._cache.put(output)
                self._advance()
            for index, kept in enumerate(hidden):
                self._outputs[number, index] = kept

    def backward(self, record: GradientRecord, seed: int, types: Sequence[Tensor] | None) -> None:
        """Take the gradients back from the actions to the first blocks."""
        generator = torch.Generator().manual_seed(seed)
        chains = self._stream.chains
        for index in range(len(self._batches)):
            with torch.enable_grad():
                between = self._between(index, len(chains))
            directions = [
                random_projection(between.actions, generator) for _ in range(self._probes)
            ]
            self._spread(between, between.actions, directions, index, record)
        for number, chain in reversed(list(enumerate(chains))):
            for block, linears in reversed(chain):
                known = types if in_decoder(block) else None
                self._back_through(number, block, linears, record, known)
                self._advance()
            self._to_earlier_chains(number, record)

    def _between(self, index: int, ready: int) -> _Between:
        """Run what lies between the chains, with the outputs of the first ``ready`` ones.

        The other chains pass their inputs on, so what comes after them has no meaning. Where
        gradients are recorded, those of the outputs can be asked for.
        """
        network, batch = self._stream.network, self._batches[index].arguments()
        outputs = [self._cache.get(self._outputs[number, index]) for number in range(ready)]
        if torch.is_grad_enabled():
            outputs = [output.detach().requires_grad_() for output in outputs]
        outside = self._outside if torch.is_grad_enabled() else {}
        with stand_ins(network, self._stream.chains) as chains, kept_outputs(outside) as kept:
            for chain, output in zip(chains, outputs, strict=False):
                chain.output = output
            device = self._stream.device
            actions = network(*(None if one is None else one.to(device) for one in batch))
            calls = [chain.arguments for chain in chains if chain.arguments is not None]
        inputs, rest = [call[0] for call in calls], [call[1] for call in calls]
        return _Between(actions, inputs, rest, outputs, kept)

    def _spread(
        self,
        between: _Between,
        value: Tensor,
        gradients: Sequence[Tensor],
        index: int,
        record: GradientRecord,
    ) -> None:
        """Take gradients, one a probe, from a value to everything between that it depends on."""
        if not value.requires_grad:
            return
        sums: dict[str, Tensor] = {}
        samples, known = len(self._batches[index].pixel_values), len(between.outputs)
        for probe, gradient in enumerate(gradients):
            found = torch.autograd.grad(
                value,
                [*between.outputs, *(one for _, one in between.kept)],
                gradient.to(value),
                retain_graph=True,
                allow_unused=True,
            )
            for number, one in enumerate(found[:known]):
                if one is not None:
                    self._add_gradient((number, index, probe), one)
            for (name, _), one in zip(between.kept, found[known:], strict=True):
                if one is not None:
                    squared = squared_norms(one, samples) / self._probes
                    sums[name] = sums[name] + squared if name in sums else squared
        for name, output in between.kept:
            if name in sums:
                record.add(name, sums[name], output.shape[-1])

    def _add_gradient(self, key: tuple[int, int, int], gradient: Tensor) -> None:
        """Add to the gradient at a chain's output."""
        if key in self._gradients:
            kept = self._gradients[key]
            self._gradients[key] = self._cache.replace(kept, self._cache.get(kept) + gradient)
        else:
            self._gradients[key] = self._cache.put(gradient)

    def _back_through(
        self,
        number: int,
        block: str,
        linears: Sequence[str],
        record: GradientRecord,
        types: Sequence[Tensor] | None,
    ) -> None:
        """Gradients at the outputs of a block's layers, and at its input in place of its output."""
        with self._stream.block(block) as module:
            modules = {name: module.get_submodule(name[len(block) + 1 :]) for name in linears}
            for index, batch in enumerate(self._batches):
                hidden = self._cache.get(self._inputs.pop((block, index)))
                hidden = hidden.detach().requires_grad_()
                with torch.enable_grad(), kept_outputs(modules) as kept:
                    output = module(hidden, *self._rest[number, index])
                outputs = [one for _, one in kept]
                sums = self._block_gradients(
                    output, hidden, outputs, (number, index), len(batch.pixel_values)
                )
                for (name, one), squared in zip(kept, sums, strict=True):
                    record.add(
                        name, squared, one.shape[-1], None if types is None else types[index]
                    )

    def _block_gradients(
        self,
        output: Tensor,
        hidden: Tensor,
        outputs: list[Tensor],
        place: tuple[int, int],
        samples: int,
    ) -> list[Tensor]:
        """Squared gradient norms at some outputs inside a block, mean over the probes."""
        sums = [torch.zeros((), device=hidden.device)] * len(outputs)
        for probe in range(self._probes):
            key = (*place, probe)
            kept = self._gradients[key]
            gradient, *inner = torch.autograd.grad(
                output,
                [hidden, *outputs],
                self._cache.get(kept),
                retain_graph=probe + 1 < self._probes,
            )
            # First the norms: an inner gradient may be the very tensor that is then overwritten.
            sums = [
                total + squared_norms(one, samples) / self._probes
                for total, one in zip(sums, inner, strict=True)
            ]
            self._gradients[key] = self._cache.replace(kept, gradient)
        return sums

    def _to_earlier_chains(self, number: int, record: GradientRecord) -> None:
        """From the gradient at a chain's input to those at the outputs of the chains before it."""
        for index in range(len(self._batches)):
            del self._outputs[number, index]
            kept = [self._gradients.pop((number, index, probe)) for probe in range(self._probes)]
            with torch.enable_grad():
                between = self._between(index, number)
            gradients = [self._cache.get(one) for one in kept]
            self._spread(between, between.inputs[number], gradients, index, record)


def streamed_action_importance(
    stream: StreamedNetwork,
    batches: Sequence[NetworkInputs],
    options: ProbeOptions,
    seed: int,
    cache: ActivationCache | None = None,
    advance: Callable[[], None] | None = None,
    types: Sequence[Tensor] | None = None,
    outside: Sequence[str] = (),
) -> ActionImportance:
    """Token weights and sensitivities of all layers with one block in memory at a time.

    In memory are what is outside of the blocks, one block, one batch's activations inside it, and
    two numbers a layer and token. The cache holds the inputs of all blocks and ``probes``
    gradients at one block's output, of all batches.

    Args:
        stream: the network, nothing of it quantized yet.
        batches: calibration inputs.
        options: of the probe.
        seed: seed of the random projections.
        cache: keeps activations and gradients; None for memory.
        advance: called twice for each block.
        types: of each batch, the token type of each position of the decoder sequence (S,).
        outside: names of linear layers outside of the blocks, to be looked at as well.

    Raises:
        HbvlaError: the network has no L1 head, or a gradient is not finite.
    """
    head = stream.network.config.head
    if head != 'l1':
        raise HbvlaError(
            f'--probe action: a {head} head needs the whole network in memory; '
            'use --probe block or --probe none'
        )
    cache = cache or ActivationCache(device=stream.device)
    inside = [name for chain in stream.chains for _, names in chain for name in names]
    record = GradientRecord([*inside, *outside])
    probe = _StreamedProbe(
        stream, batches, outside, options.probes, cache, advance or (lambda: None)
    )
    probe.forward()
    probe.backward(record, seed, types)
    return record.importance(options)
