# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Full bidirectional attention over every token (spec section 5.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention without a mask: three tensors (B, heads, T, head_dim) -> the same shape.

    torch's fused kernel serves inference. Its backward pass on a CPU is three to five times slower
    than the plain products for the few hundred tokens of a small policy, so training uses those.
    """
    if not (torch.is_grad_enabled() and query.requires_grad and query.device.type == 'cpu'):
        return functional.scaled_dot_product_attention(query, key, value)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value)
