# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Refinement: all scales of the quantized network tuned together on the actions it puts out.

Layer by layer each scale minimises the error of its own layer. Here the signs stay what they are
and all scales, and the norms and biases around them, minimise what counts: the squared difference
of the action chunks from those of the full-precision network, on the calibration frames. What is
stored keeps its size. The whole network is differentiated at once, so it must fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.quantization.calibration import NetworkInputs
from hbvla_ros.quantization.refinable import RefinableLinear

# A step moves a scale by at most about this share of the mean scale of its tensor.
LEARNING_RATE = 1e-3
_MOMENTS = (0.9, 0.99)


@dataclass(frozen=True)
class Refined:
    """What the refinement leaves.

    Attributes:
        layers: module name to quantized layer, with the same signs and new scales.
        tensors: name to new unquantized tensor, float32: norms, layer scales and biases.
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
    """Tune scales, norms and biases against the network's own full-precision actions.

    Args:
        network: the full-precision network with an L1 head, float32; it is quantized in place.
        layers: module name to quantized layer.
        batches: calibration inputs.
        steps: gradient steps, each on one batch; Adam with a cosine schedule that ends at zero.
        seed: seed of the order of the batches.
        advance: called after each step.

    Raises:
        HbvlaError: the actions become NaN, which says that the network itself is damaged.
    """
    network.requires_grad_(False)
    with torch.no_grad():
        wanted = [network(*batch.arguments()) for batch in batches]
    modules = {name: _make_refinable(network, name, layer) for name, layer in layers.items()}
    gains = _gains(network, modules)
    trained = [*(p for module in modules.values() for p in module.parameters()), *gains.values()]
    optimizer = torch.optim.Adam(
        [{'params': [p.requires_grad_()], 'size': float(p.detach().abs().mean())} for p in trained],
        betas=_MOMENTS,
    )
    order = _order(len(batches), steps, seed)
    with torch.enable_grad():
        for step, number in enumerate(order):
            decay = 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group['lr'] = LEARNING_RATE * decay * group['size']
            loss = (network(*batches[number].arguments()) - wanted[number]).square().mean()
            if not bool(torch.isfinite(loss)):
                raise HbvlaError('refinement: the actions are not finite; add --refine 0')
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if advance is not None:
                advance()
    tensors = {name: gain.detach() for name, gain in gains.items()}
    for name, module in modules.items():
        if module.bias is not None:
            tensors[f'{name}.bias'] = module.bias.detach()
    return Refined({name: module.stored() for name, module in modules.items()}, tensors)


def _make_refinable(network: nn.Module, name: str, layer: QuantizedLayer) -> RefinableLinear:
    """Put the quantized layer in the place of the linear layer."""
    parent, _, child = name.rpartition('.')
    linear = network.get_submodule(name)
    bias = linear.bias if isinstance(linear, nn.Linear) else None
    module = RefinableLinear(layer, bias)
    setattr(network.get_submodule(parent), child, module)
    return module


def _gains(network: nn.Module, modules: Mapping[str, RefinableLinear]) -> dict[str, nn.Parameter]:
    """Vectors inside the quantized blocks: norms and layer scales, by name."""
    blocks = {'.'.join(name.split('.')[:-2]) for name in modules}
    ours = tuple(f'{name}.' for name in modules)
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.dim() == 1
        and not name.startswith(ours)
        and any(name.startswith(f'{block}.') for block in blocks)
    }


def _order(count: int, steps: int, seed: int) -> list[int]:
    """Batches of the steps: every one once, in a new random order each time round."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < steps:
        order += torch.randperm(count, generator=generator).tolist()
    return order[:steps]
