# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A pass of batches through a streamed network, one block at a time for all of them.

The batches wait between the blocks in an activation cache; what lies between the chains of blocks
runs as the network itself runs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.quantization.activations import ActivationCache
from hbvla_ros.quantization.capture import BlockInputs, Call
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.stream import Recorded, StandIn, StreamedNetwork, stand_ins

Visit = Callable[[str, BlockInputs], None]


class ForwardPass:
    """Batches on their way through a streamed network, all of them block by block."""

    def __init__(
        self,
        stream: StreamedNetwork,
        batches: Sequence[NetworkInputs],
        cache: ActivationCache,
        advance: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing is computed yet.

        Args:
            stream: the network.
            batches: its inputs.
            cache: keeps the activations of all batches between two blocks.
            advance: called after each block.
        """
        self._stream, self._cache = stream, cache
        self._batches = [to_device(batch, stream.device) for batch in batches]
        self._advance = advance or (lambda: None)
        self._features: list[tuple[Tensor, Tensor]] = []

    def actions(self) -> list[Tensor]:
        """Normalised actions of each batch, float32 (B, K, A)."""
        self._towers(None)
        if self._stream.network.schedule is not None:
            return [samples[-1].cpu() for samples in self._denoise()]
        hidden = self._chain(2, self._decoder_calls(), None)
        return [self._decode(one).float().cpu() for one in hidden]

    def visit(self, visit: Visit, outside: Sequence[str], decoder: bool = True) -> None:
        """Show every block with its inputs, in forward order; what it does to the block counts.

        The decoder of a diffusion policy is called once for each batch and denoising step, with
        the samples that it denoises to in full precision.

        Args:
            visit: called with the name of a block, which has its tensors, and its calls.
            outside: modules outside of the blocks to be shown as well: 'projector',
                'proprio_projector', 'action_head'.
            decoder: false ends after what lies before the decoder.
        """
        self._towers(visit)
        for name, inputs in (
            ('projector', self._fused_features),
            ('proprio_projector', self._proprio),
        ):
            if name in outside:
                visit(name, BlockInputs([((one,), {}) for one in inputs()], self._cache))
        if not decoder:
            return
        hidden = self._chain(2, self._decoder_calls(), visit)
        if 'action_head' in outside:
            states = [self._head_inputs(one) for one in hidden]
            visit('action_head', BlockInputs([((one,), {}) for one in states], self._cache))

    def _towers(self, visit: Visit | None) -> None:
        """Run both towers and keep their outputs."""
        outputs = [
            self._chain(
                number, (self._tower_call(n, number) for n in range(len(self._batches))), visit
            )
            for number in (0, 1)
        ]
        self._features = list(zip(*outputs, strict=True))

    def _chain(self, number: int, calls: Iterable[Call], visit: Visit | None) -> list[Tensor]:
        """Run one chain of blocks and return what it puts out for each call, as it is kept."""
        inputs = BlockInputs(calls, self._cache)
        for block, _ in self._stream.chains[number]:
            with self._stream.block(block):
                if visit is not None:
                    visit(block, inputs)
                inputs.advance(self._stream.network, block)
            self._advance()
        return inputs.hidden()

    def _tower_call(self, index: int, number: int) -> Call:
        """How a tower's first block is called."""
        with stand_ins(self._stream.network, self._stream.chains) as chains, torch.no_grad():
            chains[number].stop = True
            return _arguments(chains[number], lambda: self._context(index))

    def _context(self, index: int) -> Any:
        batch = self._batches[index]
        return self._stream.network.context(batch.pixel_values, batch.input_ids, batch.proprio)

    @contextmanager
    def _after_towers(self, index: int) -> Iterator[StandIn]:
        """The network with the towers' outputs for one batch; yields the decoder's stand-in."""
        with stand_ins(self._stream.network, self._stream.chains) as chains, torch.no_grad():
            for chain, output in zip(chains, self._features[index], strict=False):
                chain.output = self._cache.get(output)
            yield chains[2]

    def _fused_features(self) -> Iterator[Tensor]:
        """What the projector takes, batch by batch."""
        for index in range(len(self._batches)):
            with self._after_towers(index):
                yield self._context(index).features

    def _proprio(self) -> Iterator[Tensor]:
        """What the projector of the proprioception takes, batch by batch."""
        for batch in self._batches:
            if batch.proprio is not None:
                yield batch.proprio.to(self._stream.dtype)

    def _decoder_call(
        self, index: int, sample: Tensor | None = None, timestep: int | None = None
    ) -> Call:
        """How the decoder's first layer is called."""
        times = None
        if timestep is not None:
            count = len(self._batches[index].pixel_values)
            times = torch.full((count,), timestep, device=self._stream.device)
        with self._after_towers(index) as decoder:
            context = self._context(index)
            decoder.stop = True
            return _arguments(
                decoder,
                lambda: self._stream.network.run_language_model(context, sample, times),
            )

    def _decoder_calls(self) -> Iterator[Call]:
        """All calls of the decoder: of each batch one, or one a denoising step."""
        schedule = self._stream.network.schedule
        if schedule is None:
            yield from (self._decoder_call(index) for index in range(len(self._batches)))
            return
        for index, path in enumerate(self._denoise()):
            # The last sample is the actions.
            for sample, timestep in zip(path[:-1], schedule.timesteps, strict=True):
                yield self._decoder_call(index, sample, timestep)

    def _denoise(self) -> list[list[Tensor]]:
        """The samples of every denoising step, from the noise to the actions, batch by batch."""
        schedule = self._stream.network.schedule
        assert schedule is not None, 'only diffusion heads denoise'
        paths = [[_noise(batch).float()] for batch in self._batches]
        for timestep in schedule.timesteps:
            calls = (
                self._decoder_call(index, path[-1], timestep) for index, path in enumerate(paths)
            )
            for path, hidden in zip(paths, self._chain(2, calls, None), strict=True):
                path.append(schedule.step(path[-1], self._decode(hidden).float(), timestep))
        return paths

    def _states(self, hidden: Tensor) -> Tensor:
        """The states that the head reads, from what the last decoder layer puts out."""
        network = self._stream.network
        with torch.no_grad():
            return network.action_states(network.language_model.model.norm(self._cache.get(hidden)))

    def _head_inputs(self, hidden: Tensor) -> Tensor:
        states = self._states(hidden)
        return states.reshape(len(states), self._stream.network.platform.chunk, -1)

    def _decode(self, hidden: Tensor) -> Tensor:
        with torch.no_grad():
            return self._stream.network.decode(self._states(hidden))


def _arguments(stand_in: StandIn, run: Callable[[], Any]) -> Call:
    """What a stand-in that stops is called with."""
    try:
        run()
    except Recorded:
        pass
    assert stand_in.arguments is not None, 'every pass goes through every chain'
    hidden, rest = stand_in.arguments
    return (hidden, *rest), {}


def _noise(batch: NetworkInputs) -> Tensor:
    assert batch.noise is not None, 'calibration of a diffusion policy draws its noise'
    return batch.noise


def to_device(batch: NetworkInputs, device: torch.device) -> NetworkInputs:
    """A batch on a device."""
    tensors = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    moved = {name: one.to(device) for name, one in tensors.items() if isinstance(one, Tensor)}
    return dataclasses.replace(batch, **moved)
