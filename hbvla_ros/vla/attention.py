# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Full bidirectional attention over every token (spec section 5.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Attention of all to all: three tensors (B, heads, T, head_dim) -> the same shape.

    Args:
        query: what asks.
        key: what is asked for.
        value: what is given.
        ignored: bool (B, 1, 1, T), keys that nobody sees (padding); None for none.

    torch's fused kernel serves inference. Its backward pass on a CPU is three to five times slower
    than the plain products for the few hundred tokens of a small policy, so training uses those.
    """
    if not (torch.is_grad_enabled() and query.requires_grad and query.device.type == 'cpu'):
        seen = None if ignored is None else ~ignored
        return functional.scaled_dot_product_attention(query, key, value, seen)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    if ignored is not None:
        scores = scores.masked_fill(ignored, -torch.inf)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value)
