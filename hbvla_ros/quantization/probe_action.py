# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Action gradients: how much the actions depend on each token of each layer (spec 1.2, 6b).

The whole network is differentiated at once, with the outputs of all its linear layers held in
memory: right for a network that fits. Any head with continuous actions will do; the gradient of a
diffusion head goes through all denoising steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.probe import TokenWeights, kept_outputs, squared_norms, token_weights
from hbvla_ros.quantization.probe_options import ProbeOptions, in_decoder, probed_layers


@dataclass(frozen=True)
class ActionImportance:
    """What the action gradient says about the linear layers.

    Attributes:
        weights: token weights of the layers that get a rectified Hessian.
        sensitivity: of every layer, the mean over samples, tokens and output channels of the
            squared gradient of the actions, ``mean |d a / d y|^2``, summed over the actions of a
            sample; in squared (normalised) actions by squared output, not normalised.
        tokens: of every layer, how many tokens of its outputs one sample has. Independent errors
            of variance v at the outputs of a layer with d channels cost the actions
            ``v * d * tokens * sensitivity`` in squared difference a sample.
    """

    weights: TokenWeights
    sensitivity: dict[str, float]
    tokens: dict[str, float]

    @property
    def costs(self) -> dict[str, float]:
        """Of every layer, what its error ``tr(E H E^T)`` costs the actions in a sample.

        H is the mean of ``s_t x_t x_t^T`` with token weights of power 2 and mean one; the cost is
        in squared (normalised) actions, which makes the errors of all layers comparable. It takes
        the errors of different tokens and channels as independent of each other.
        """
        return {name: self.tokens[name] * value for name, value in self.sensitivity.items()}


class GradientRecord:
    """Squared gradient norms of every layer, call by call, until they become importance."""

    def __init__(self, names: Sequence[str]) -> None:
        """Start empty for the layers of these names."""
        self._squared: dict[str, list[Tensor]] = {name: [] for name in names}
        self._types: dict[str, list[Tensor | None]] = {name: [] for name in names}
        self._channels: dict[str, int] = {}

    def add(self, name: str, squared: Tensor, channels: int, types: Tensor | None = None) -> None:
        """Add one call of a layer.

        Args:
            name: the layer.
            squared: float32 (samples, tokens), mean over the probes of the squared norms.
            channels: outputs of the layer.
            types: token type of each position (tokens,), None where all are of one type.
        """
        self._squared[name].append(squared)
        self._types[name].append(types)
        self._channels[name] = channels

    def importance(self, options: ProbeOptions) -> ActionImportance:
        """What the record amounts to.

        Raises:
            HbvlaError: a gradient is not finite.
        """
        weights = {
            name: token_weights(name, self._squared[name], options, self._types[name])
            for name in probed_layers(self._squared, options)
        }
        sensitivity, tokens = {}, {}
        for name, calls in self._squared.items():
            elements = sum(call.numel() for call in calls)
            total = sum(float(call.double().sum()) for call in calls)
            sensitivity[name] = total / (elements * self._channels[name])
            tokens[name] = elements / sum(len(call) for call in calls)
        return ActionImportance(weights, sensitivity, tokens)


def action_importance(
    network: nn.Module,
    names: Sequence[str],
    batches: Sequence[NetworkInputs],
    options: ProbeOptions,
    seed: int,
    advance: Callable[[], None] | None = None,
    types: Sequence[Tensor] | None = None,
) -> ActionImportance:
    """Token weights and sensitivities from the gradient of the actions, layer by layer.

    For random projections r of the actions, the mean of ``|d(r . a) / dY_t|^2`` is the squared
    norm of the action Jacobian at token t (Hutchinson), which is what a small error of that
    output costs in squared action difference.

    Args:
        network: full-precision network.
        names: linear layers.
        batches: calibration inputs.
        options: of the probe.
        seed: seed of the projections.
        advance: called after each batch.
        types: of each batch, the token type of each position of the decoder sequence (S,); for
            ``balance_types``.

    Raises:
        HbvlaError: a gradient is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    record = GradientRecord(names)
    linears = {name: network.get_submodule(name) for name in names}
    for number, batch in enumerate(batches):
        samples = len(batch.pixel_values)
        with kept_outputs(linears) as outputs, torch.enable_grad():
            actions = network(*batch.arguments())
        sums = [torch.zeros((), device=actions.device)] * len(outputs)
        for gradients in _gradients(
            actions, [output for _, output in outputs], options.probes, generator
        ):
            sums = [
                total + squared_norms(gradient, samples) / options.probes
                for total, gradient in zip(sums, gradients, strict=True)
            ]
        for (name, output), squared in zip(outputs, sums, strict=True):
            known = types[number] if types is not None and in_decoder(name) else None
            record.add(name, squared, output.shape[-1], known)
        if advance is not None:
            advance()
    return record.importance(options)


def _gradients(
    actions: Tensor, outputs: list[Tensor], probes: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """Gradients of the outputs for one random projection of the actions after the other."""
    for probe in range(probes):
        yield torch.autograd.grad(
            actions,
            outputs,
            grad_outputs=random_projection(actions, generator),
            retain_graph=probe + 1 < probes,
            materialize_grads=True,
        )


def random_projection(actions: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the actions' shape, the same on every device."""
    return torch.randn(actions.shape, generator=generator).to(actions)
