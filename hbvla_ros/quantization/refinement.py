# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Refinement: everything but the signs tuned together on the actions that the network puts out.

Layer by layer each scale minimises the error of its own layer. Here the signs stay what they are
and all scales, and all tensors that are not quantized, minimise what counts: the squared difference
of the action chunks from those of the full-precision network, on the calibration frames. What is
stored keeps its size. The whole network is differentiated at once, so it must fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.refinable import RefinableLinear

# A step moves a value by at most about this share of the mean magnitude of its tensor.
LEARNING_RATE = 1e-3
FRAMES_PER_STEP = 32
_MOMENTS = (0.9, 0.99)
# Adam's first steps are the least sure of their direction.
_WARM_UP = 20


@dataclass(frozen=True)
class Refined:
    """What the refinement leaves.

    Attributes:
        layers: module name to quantized layer, with the same signs and new scales.
        tensors: name to new unquantized tensor, float32.
    """

    layers: dict[str, QuantizedLayer]
    tensors: dict[str, Tensor]


def refine(
    network: nn.Module,
    layers: Mapping[str, QuantizedLayer],
    batches: Sequence[NetworkInputs],
    steps: int,
    seed: int,
    advance: Callable[[], None] | None = None,
) -> Refined:
    """Tune scales and unquantized tensors against the network's own full-precision actions.

    Args:
        network: the full-precision network with an L1 head, float32; it is quantized in place.
        layers: module name to quantized layer.
        batches: calibration inputs.
        steps: gradient steps of :data:`FRAMES_PER_STEP` frames each; Adam with a cosine schedule
            that ends at zero.
        seed: seed of the order of the frames.
        advance: called after each step.

    Raises:
        HbvlaError: the actions become NaN, which says that the network itself is damaged.
    """
    network.requires_grad_(False)
    frames = _Frames(network, batches)
    modules = {name: _make_refinable(network, name, layer) for name, layer in layers.items()}
    others = _unquantized(network, modules)
    trained = [*(p for module in modules.values() for p in module.parameters()), *others.values()]
    optimizer = torch.optim.Adam(
        [{'params': [p.requires_grad_()], 'size': float(p.detach().abs().mean())} for p in trained],
        betas=_MOMENTS,
    )
    with torch.enable_grad():
        for step, (inputs, wanted) in enumerate(frames.draw(steps, seed)):
            for group in optimizer.param_groups:
                group['lr'] = LEARNING_RATE * _schedule(step, steps) * group['size']
            loss = (network(*inputs.arguments()) - wanted).square().mean()
            if not bool(torch.isfinite(loss)):
                raise HbvlaError('refinement: the actions are not finite; add --refine 0')
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if advance is not None:
                advance()
    # A tensor without gradient has no part in the actions and is left alone.
    tensors = {name: p.detach() for name, p in others.items() if p.grad is not None}
    for name, module in modules.items():
        if module.bias is not None:
            tensors[f'{name}.bias'] = module.bias.detach()
    return Refined({name: module.stored() for name, module in modules.items()}, tensors)


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to zero."""
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


class _Frames:
    """Calibration frames and the actions they should lead to, by the length of their prompts."""

    def __init__(self, network: nn.Module, batches: Sequence[NetworkInputs]) -> None:
        groups: dict[int, list[tuple[NetworkInputs, Tensor]]] = {}
        with torch.no_grad():
            for batch in batches:
                wanted = network(*batch.arguments())
                groups.setdefault(batch.input_ids.shape[1], []).append((batch, wanted))
        self._groups = [
            (_joined([batch for batch, _ in group]), torch.cat([wanted for _, wanted in group]))
            for group in groups.values()
        ]

    def draw(self, steps: int, seed: int) -> Iterator[tuple[NetworkInputs, Tensor]]:
        """Give ``steps`` batches: every frame once, in a new random order each time round."""
        generator = torch.Generator().manual_seed(seed)
        left: list[tuple[int, Tensor]] = []
        for _ in range(steps):
            left = left or self._shuffled(generator)
            number, rows = left.pop()
            inputs, wanted = self._groups[number]
            yield _rows(inputs, rows), wanted[rows]

    def _shuffled(self, generator: torch.Generator) -> list[tuple[int, Tensor]]:
        """Group and rows of all batches of one time round."""
        batches = [
            (number, rows)
            for number, (_, wanted) in enumerate(self._groups)
            for rows in torch.randperm(len(wanted), generator=generator).split(FRAMES_PER_STEP)
        ]
        order = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[place] for place in order]


def _joined(batches: Sequence[NetworkInputs]) -> NetworkInputs:
    """Batches of equal prompt length one after the other; an L1 head takes no noise."""
    proprio = [batch.proprio for batch in batches if batch.proprio is not None]
    return NetworkInputs(
        torch.cat([batch.pixel_values for batch in batches]),
        torch.cat([batch.input_ids for batch in batches]),
        torch.cat(proprio) if proprio else None,
        None,
    )


def _rows(inputs: NetworkInputs, rows: Tensor) -> NetworkInputs:
    """Some frames of a batch."""
    proprio = None if inputs.proprio is None else inputs.proprio[rows]
    return NetworkInputs(inputs.pixel_values[rows], inputs.input_ids[rows], proprio, None)


def _make_refinable(network: nn.Module, name: str, layer: QuantizedLayer) -> RefinableLinear:
    """Put the quantized layer in the place of the linear layer."""
    linear = network.get_submodule(name)
    bias = linear.bias if isinstance(linear, nn.Linear) else None
    module = RefinableLinear(layer, bias)
    network.set_submodule(name, module)
    return module


def _unquantized(
    network: nn.Module, modules: Mapping[str, RefinableLinear]
) -> dict[str, nn.Parameter]:
    """Parameters outside the quantized layers, by name."""
    ours = tuple(f'{name}.' for name in modules)
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if not name.startswith(ours)
    }
