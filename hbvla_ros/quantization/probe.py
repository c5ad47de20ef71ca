# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Token weights: how much the action depends on each token of each layer (spec 1.2, 6b).

The whole network is differentiated at once, with the outputs of all its linear layers held in
memory: right for a small network. The layer-wise form that a 7.5 B network needs is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hbvla_ros.quantization.calibration import NetworkInputs

CLIP_QUANTILE = 0.999
FLOOR = 0.05

# Layer name to one weight tensor a call, in the order of the calls; each is flat over tokens.
TokenWeights = dict[str, list[Tensor]]


def action_token_weights(
    network: nn.Module,
    names: Sequence[str],
    batches: Sequence[NetworkInputs],
    probes: int,
    seed: int,
    advance: Callable[[], None] | None = None,
) -> TokenWeights:
    """Squared action gradient at the output of each layer, token by token.

    For random projections r of the actions, the mean of ``|d(r . a) / dY_t|^2`` is the squared
    norm of the action Jacobian at token t (Hutchinson), which is what a small error of that
    output costs in squared action difference. Weights have mean one in every sample, are clipped
    at their 99.9th percentile and then floored at 0.05.

    Args:
        network: full-precision network.
        names: linear layers.
        batches: calibration inputs.
        probes: random projections of each sample.
        seed: seed of the projections.
        advance: called after each batch.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: TokenWeights = {name: [] for name in names}
    for batch in batches:
        outputs: list[tuple[str, Tensor]] = []
        handles = [_keep_output(network, name, outputs) for name in names]
        try:
            with torch.enable_grad():
                actions = network(*batch.arguments())
        finally:
            for handle in handles:
                handle.remove()
        sums = _squared_gradients(actions, [output for _, output in outputs], probes, generator)
        for (name, _), total in zip(outputs, sums, strict=True):
            weights[name].append(_mean_one(total, len(batch.pixel_values)))
        if advance is not None:
            advance()
    return {name: _clip_and_floor(calls) for name, calls in weights.items()}


def _keep_output(
    network: nn.Module, name: str, outputs: list[tuple[str, Tensor]]
) -> RemovableHandle:
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Parameters need no gradient, so the first layers' outputs have none of their own yet.
        output = output if output.requires_grad else output.detach().requires_grad_()
        outputs.append((name, output))
        return output

    return network.get_submodule(name).register_forward_hook(hook)


def _squared_gradients(
    actions: Tensor, outputs: list[Tensor], probes: int, generator: torch.Generator
) -> list[Tensor]:
    """Mean over probes of the squared gradient norm of each token, (..., tokens) per output."""
    sums = [torch.zeros(output.shape[:-1]) for output in outputs]
    for probe in range(probes):
        projection = torch.randn(actions.shape, generator=generator)
        gradients = torch.autograd.grad(
            (actions * projection).sum(),
            outputs,
            retain_graph=probe + 1 < probes,
            materialize_grads=True,
        )
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.float().square().sum(dim=-1) / probes
    return sums


def _mean_one(weights: Tensor, samples: int) -> Tensor:
    """Scale the weights of each sample to mean one, flat over all tokens."""
    rows = weights.reshape(samples, -1)
    mean = rows.mean(dim=1, keepdim=True)
    return torch.where(mean > 0, rows / mean, torch.ones_like(rows)).flatten()


def _clip_and_floor(calls: list[Tensor]) -> list[Tensor]:
    """Bound outliers over all calls, then keep a share of every token."""
    every = torch.cat(calls)
    rank = max(1, round(CLIP_QUANTILE * len(every)))
    limit = every.kthvalue(rank).values
    return [(1 - FLOOR) * call.clamp(max=limit) + FLOOR for call in calls]
