# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From gradients at the outputs of linear layers to one weight a token (spec 1.2, A-5, A-27)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.probe_options import ProbeOptions

# Layer name to one weight tensor a call, in the order of the calls; each is flat over tokens.
TokenWeights = dict[str, list[Tensor]]


@contextmanager
def kept_outputs(linears: Mapping[str, nn.Module]) -> Iterator[list[tuple[str, Tensor]]]:
    """Collect the outputs of linear layers, in the order of the calls, ready for a gradient.

    Args:
        linears: modules by the name they are collected under.
    """
    outputs: list[tuple[str, Tensor]] = []
    with ExitStack() as handles:
        for name, module in linears.items():

            def keep(
                _module: nn.Module, _args: tuple[Tensor, ...], output: Tensor, name: str = name
            ) -> Tensor:
                # Parameters need no gradient, so the first layers' outputs have none of their own.
                output = output if output.requires_grad else output.detach().requires_grad_()
                outputs.append((name, output))
                return output

            handles.callback(module.register_forward_hook(keep).remove)
        yield outputs


def squared_norms(gradient: Tensor, samples: int) -> Tensor:
    """Squared norm over the channels of each token, float32 (samples, tokens of a sample).

    Args:
        gradient: (..., channels), whole samples one after the other.
        samples: how many.
    """
    return gradient.float().square().sum(dim=-1).reshape(samples, -1)


def token_weights(
    name: str,
    squared: Sequence[Tensor],
    options: ProbeOptions,
    types: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Token weights of one layer.

    In this order: the power, mean one (of each sample, or of all), the clip, the balance of the
    token types, the floor. A constant factor of the gradients, such as the paper's division by
    the number of channels, cancels. Where no token matters all weigh the same.

    Args:
        name: of the layer, for messages.
        squared: float32 (samples, tokens) squared gradient norms of each call.
        options: power, normalisation, clip, balance and floor are used.
        types: token type of each position (tokens,) of each call, None where all are of one type.

    Returns:
        One flat float32 tensor (samples * tokens) a call.

    Raises:
        HbvlaError: a gradient is not finite.
    """
    if not all(bool(torch.isfinite(call).all()) for call in squared):
        raise HbvlaError(
            f'{name}: its gradients are not finite; the weights overflow, or add --probe none'
        )
    calls = [call.sqrt() for call in squared] if options.power == 1 else list(squared)
    calls = _mean_one(calls, options.per_sample_normalisation)
    calls = _clip(calls, options.clip_quantile)
    if options.balance_types and types is not None:
        calls = [_balance(call, kind) for call, kind in zip(calls, types, strict=True)]
    return [((1 - options.floor) * call + options.floor).flatten() for call in calls]


def _mean_one(calls: list[Tensor], per_sample: bool) -> list[Tensor]:
    """Scale to mean one, each row on its own or everything together."""
    if per_sample:
        means = [call.mean(dim=1, keepdim=True) for call in calls]
    else:
        total = torch.stack([call.sum() for call in calls]).sum()
        means = [total / sum(call.numel() for call in calls)] * len(calls)
    return [
        torch.where(mean > 0, call / mean, torch.ones_like(call))
        for call, mean in zip(calls, means, strict=True)
    ]


def _clip(calls: list[Tensor], quantile: float) -> list[Tensor]:
    """Bound outliers over all calls."""
    every = torch.cat([call.flatten() for call in calls])
    limit = every.kthvalue(max(1, round(quantile * len(every)))).values
    # Where fewer tokens matter than may be outliers, the bound would wipe them all out.
    return [call.clamp(max=limit) for call in calls] if float(limit) > 0 else calls


def _balance(weights: Tensor, types: Tensor | None) -> Tensor:
    """Give each type that matters at all the same share of each sample; the mean is one."""
    if types is None:
        return weights
    types = types.to(weights.device).long()
    sums = weights @ functional.one_hot(types).to(weights)
    share = weights.shape[1] / (sums > 0).sum(dim=1, keepdim=True).clamp_min(1)
    factors = torch.where(sums > 0, share / sums, torch.ones_like(sums))
    return weights * factors[:, types]
