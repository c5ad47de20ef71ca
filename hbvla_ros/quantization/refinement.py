# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Refinement: scales, and signs if wanted, tuned together on the actions that the network puts out.

Layer by layer each scale minimises the error of its own layer. Here the signs stay what they are,
unless they are to be trained too, and all scales and all tensors that are not quantized minimise
what counts: the squared difference of the action chunks from those of the full-precision network,
on the calibration frames. What is stored keeps its size. The whole network is differentiated at
once, so it must fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.forward_pass import to_device
from hbvla_ros.quantization.frame_store import FrameStore
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.refinable import RefinableLinear

# A step moves a value by at most about this share of the mean magnitude of its tensor.
LEARNING_RATE = 1e-3
# The same of a latent value, whose size is 1 at most.
SIGN_LEARNING_RATE = 2e-3
FRAMES_PER_STEP = 32
_MOMENTS = (0.9, 0.99)
# Adam's first steps are the least sure of their direction.
_WARM_UP = 20
_CPU = torch.device('cpu')


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
    store: FrameStore,
    steps: int,
    seed: int,
    advance: Callable[[], None] | None = None,
    device: torch.device = _CPU,
    signs: bool = False,
) -> Refined:
    """Tune scales and unquantized tensors against the network's own full-precision actions.

    Args:
        network: the full-precision network with an L1 head, float32; it is quantized in place.
        layers: module name to quantized layer.
        store: frames to draw from.
        steps: gradient steps of :data:`FRAMES_PER_STEP` frames each; Adam with a cosine schedule
            that ends at zero.
        seed: seed of the order of the frames.
        advance: called after each step.
        device: where the network and the layers are.
        signs: whether the signs are trained as well, see :mod:`~.sign_latents`.

    Raises:
        HbvlaError: the actions become NaN, which says that the network itself is damaged.
    """
    network.requires_grad_(False)
    frames = _Frames(network, store, device)
    modules = {name: _make_refinable(network, name, layer, signs) for name, layer in layers.items()}
    others = _unquantized(network, modules)
    optimizer = _optimizer(modules, others)
    with torch.enable_grad():
        for step, (inputs, wanted) in enumerate(frames.draw(steps, seed)):
            for group in optimizer.param_groups:
                group['lr'] = _schedule(step, steps) * group['size']
            loss = (network(*inputs.arguments()) - wanted).square().mean()
            if not bool(torch.isfinite(loss)):
                raise HbvlaError('refinement: the actions are not finite; add --refine 0')
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for module in modules.values():
                module.clamp_latents()
            if advance is not None:
                advance()
    # A tensor without gradient has no part in the actions and is left alone.
    tensors = {name: p.detach() for name, p in others.items() if p.grad is not None}
    for name, module in modules.items():
        if module.bias is not None:
            tensors[f'{name}.bias'] = module.bias.detach()
    return Refined({name: module.stored() for name, module in modules.items()}, tensors)


def _optimizer(
    modules: Mapping[str, RefinableLinear], others: Mapping[str, nn.Parameter]
) -> torch.optim.Adam:
    """Adam over everything that is trained; ``size`` is a group's largest step."""
    latents = [p for module in modules.values() for p in module.latents.parameters()]
    known = {id(p) for p in latents}
    rest = [p for module in modules.values() for p in module.parameters() if id(p) not in known]
    groups: list[dict[str, Any]] = [
        {'params': [p.requires_grad_()], 'size': LEARNING_RATE * float(p.detach().abs().mean())}
        for p in (*rest, *others.values())
    ]
    groups += [{'params': [p.requires_grad_()], 'size': SIGN_LEARNING_RATE} for p in latents]
    return torch.optim.Adam(groups, betas=_MOMENTS)


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to zero."""
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


class _Frames:
    """Frames and the actions they should lead to."""

    def __init__(self, network: nn.Module, store: FrameStore, device: torch.device) -> None:
        self._store, self._device = store, device
        # Frames by the length of their prompts, which all of a step share.
        self._groups: dict[int, list[int]] = {}
        for row, length in enumerate(store.lengths):
            self._groups.setdefault(length, []).append(row)
        self._wanted: dict[int, Tensor] = {}
        with torch.no_grad():
            for group in self._groups.values():
                for start in range(0, len(group), FRAMES_PER_STEP):
                    rows = group[start : start + FRAMES_PER_STEP]
                    self._wanted |= zip(rows, network(*self._inputs(rows).arguments()), strict=True)

    def draw(self, steps: int, seed: int) -> Iterator[tuple[NetworkInputs, Tensor]]:
        """Give ``steps`` batches: every frame once, in a new random order each time round."""
        generator = torch.Generator().manual_seed(seed)
        left: list[list[int]] = []
        for _ in range(steps):
            left = left or self._shuffled(generator)
            rows = left.pop()
            yield self._inputs(rows), torch.stack([self._wanted[row] for row in rows])

    def _inputs(self, rows: Sequence[int]) -> NetworkInputs:
        return to_device(self._store.inputs(rows), self._device)

    def _shuffled(self, generator: torch.Generator) -> list[list[int]]:
        """Frames of every step of one time round."""
        steps = [
            [group[place] for place in part.tolist()]
            for group in self._groups.values()
            for part in torch.randperm(len(group), generator=generator).split(FRAMES_PER_STEP)
        ]
        return [steps[place] for place in torch.randperm(len(steps), generator=generator).tolist()]


def _make_refinable(
    network: nn.Module, name: str, layer: QuantizedLayer, signs: bool
) -> RefinableLinear:
    """Put the quantized layer in the place of the linear layer."""
    linear = network.get_submodule(name)
    bias = linear.bias if isinstance(linear, nn.Linear) else None
    weight = linear.get_parameter('weight') if signs else None
    module = RefinableLinear(layer, bias, weight)
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
