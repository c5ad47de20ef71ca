# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The paper's block-wise gradient probe (spec 1.2, A-3, A-4, A-20, A-21).

One block is run with its own weights and with provisionally binarized ones on the same inputs;
the importance of a token for a linear layer is the gradient of the squared difference of the two
outputs at that layer's output. Only the block and its inputs are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.probe import TokenWeights, kept_outputs, squared_norms, token_weights
from hbvla_ros.quantization.probe_options import ProbeOptions, is_attention, probed_layers

_Run = Callable[[], Tensor]


class TwoPartBlock(Protocol):
    """A transformer block as :mod:`hbvla_ros.vla` makes them: attention, then feed-forward."""

    def attention_part(self, hidden: Tensor, *rest: Any) -> Tensor:
        """The residual stream after the attention."""

    def feed_forward_part(self, hidden: Tensor) -> Tensor:
        """The residual stream after the feed-forward part."""


def sign_weight(weight: Tensor) -> Tensor:
    """The cheapest provisional binarization: signs and the mean magnitude of each row (A-3).

    Args:
        weight: (rows, columns).

    Returns:
        The binarized weight, of the same shape and type.
    """
    scale = weight.abs().mean(dim=1, keepdim=True)
    return torch.where(weight < 0, -scale, scale)


def block_token_weights(
    block: nn.Module,
    calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]],
    names: Sequence[str],
    provisional: Mapping[str, Tensor],
    options: ProbeOptions,
    types: Sequence[Tensor | None] | None = None,
    frames: Sequence[int] | None = None,
) -> TokenWeights:
    """Token weights of the linear layers of one block.

    The binarized weights are in the block only while this runs. The block and its calls should be
    in float32: what the binarization changes is small against the residual stream of a few tokens
    of a large network, too small for the rounding of 16 bits.

    Args:
        block: decoder layer or tower block with its full-precision weights.
        calls: (arguments, keyword arguments) of each call of the block; the first argument is the
            hidden state (B, T, D). Read once.
        names: full names of the block's linear layers.
        provisional: binarized weight by full name, each of its layer's shape; the weights of
            layers that are not in it stay as they are.
        options: all but ``probes`` and ``provisional`` are used; ``layers`` and ``vision`` select
            the layers that get weights.
        types: token type of each position (T,) of each call, for ``balance_types``.
        frames: of each call, the samples that are normalised one by one; by default B, which for
            a tower counts each image on its own.

    Returns:
        One flat float32 tensor a call for each layer with a rectified Hessian.

    Raises:
        HbvlaError: a provisional weight has another shape, or a gradient is not finite.
    """
    probed = probed_layers(names, options)
    linears = {name: _linear(block, name) for name in names}
    swapped = {linears[name]: weight for name, weight in provisional.items()}
    _check_shapes(linears, provisional)
    squared: dict[str, list[Tensor]] = {name: [] for name in probed}
    for number, (args, kwargs) in enumerate(calls):
        samples = len(args[0]) if frames is None else frames[number]
        for run, part in _parts(block, probed, options, args, kwargs):
            found = _gradients(run, {n: linears[n] for n in part}, swapped, options)
            for name, gradient in found:
                squared[name].append(squared_norms(gradient, samples))
    return {name: token_weights(name, total, options, types) for name, total in squared.items()}


def _parts(
    block: nn.Module,
    names: Sequence[str],
    options: ProbeOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[tuple[_Run, list[str]]]:
    """What counts as a block, and which layers it has; each as a function of its weights alone."""
    if options.block_scope == 'layer':
        if names:
            yield lambda: block(*args, **kwargs), list(names)
        return
    two_parts = cast('TwoPartBlock', block)
    attention = [name for name in names if is_attention(name)]
    others = [name for name in names if not is_attention(name)]
    if attention:
        yield lambda: two_parts.attention_part(*args, **kwargs), attention
    if others:
        with torch.no_grad():
            hidden = two_parts.attention_part(*args, **kwargs)
        yield lambda: two_parts.feed_forward_part(hidden), others


def _gradients(
    run: _Run,
    linears: Mapping[str, nn.Linear],
    swapped: Mapping[nn.Linear, Tensor],
    options: ProbeOptions,
) -> list[tuple[str, Tensor]]:
    """Gradients of the squared block error at the outputs of the layers, in forward order."""
    in_full = options.gradient_branch == 'full'
    with torch.no_grad(), _weights(swapped if in_full else {}):
        constant = run()
    with _weights({} if in_full else swapped), torch.enable_grad(), kept_outputs(linears) as kept:
        loss = (run().float() - constant.float()).square().sum()
        gradients = torch.autograd.grad(loss, [output for _, output in kept])
    return [(name, gradient) for (name, _), gradient in zip(kept, gradients, strict=True)]


@contextmanager
def _weights(swapped: Mapping[nn.Linear, Tensor]) -> Iterator[None]:
    """Put other weights into linear layers for a while; the parameters themselves come back."""
    originals = {linear: linear.weight for linear in swapped}
    try:
        for linear, weight in swapped.items():
            like = originals[linear]
            weight = weight.detach().to(device=like.device, dtype=like.dtype)
            linear.weight = nn.Parameter(weight, requires_grad=False)
        yield
    finally:
        for linear, original in originals.items():
            linear.weight = original


def _linear(block: nn.Module, name: str) -> nn.Linear:
    """The layer of the block that a full name means."""
    for local, module in block.named_modules():
        if isinstance(module, nn.Linear) and f'.{name}'.endswith(f'.{local}'):
            return module
    raise HbvlaError(f'{name}: the block has no such linear layer in full precision')


def _check_shapes(linears: Mapping[str, nn.Linear], provisional: Mapping[str, Tensor]) -> None:
    for name, weight in provisional.items():
        wanted = tuple(linears[name].weight.shape)
        if tuple(weight.shape) != wanted:
            raise HbvlaError(f'{name}: provisional weight is {tuple(weight.shape)}, not {wanted}')
