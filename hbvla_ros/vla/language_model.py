# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The Llama stack with full bidirectional attention (spec section 5.4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbvla_ros.vla.attention import attend
from hbvla_ros.vla.config import LanguageConfig


class RootMeanSquareNorm(nn.Module):
    """Llama's norm: computed in float32, scaled in the input's type."""

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(hidden.dtype)


def rotary_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Cosine and sine of the angles: positions int64 (..., T) -> float32 (2, ..., T, head_dim)."""
    even = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device)
    frequencies = 1.0 / (theta ** (even.float() / head_dim))
    angles = positions.float().unsqueeze(-1) * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(vectors: Tensor, table: Tensor) -> Tensor:
    """Turn (B, heads, T, head_dim) by the table's angles, halves paired as Llama pairs them."""
    cosine, sine = table[0], table[1]
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cosine + torch.cat([-second, first], dim=-1) * sine


class Padding(NamedTuple):
    """Tokens that fill up shorter prompts of a batch; nobody sees them, they take no position.

    Attributes:
        start: index of the first one in the sequence, the same in each row.
        counts: int64 (B,), how many there are.
    """

    start: int
    counts: Tensor

    def apply(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Positions int64 (B, 1, S) without the padding, and whether a token is of it, of (S,)."""
        counts = self.counts[:, None, None]
        after = index >= self.start
        ignored = after & (index < self.start + counts)
        return torch.where(after, index - counts, index), ignored.unsqueeze(1)


class SelfAttention(nn.Module):
    """Every token sees every token; key-value heads may be shared by groups of query heads."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.heads, self.key_value_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        dim, narrow = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, narrow, bias=False)
        self.v_proj = nn.Linear(dim, narrow, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor, table: Tensor, ignored: Tensor | None = None) -> Tensor:
        """(B, T, D) with the rotary table (2, T, head_dim) -> (B, T, D); `ignored` as in attend."""
        batch, tokens, _ = hidden.shape
        query = self.q_proj(hidden).view(batch, tokens, self.heads, self.head_dim)
        key = self.k_proj(hidden).view(batch, tokens, self.key_value_heads, self.head_dim)
        value = self.v_proj(hidden).view(batch, tokens, self.key_value_heads, self.head_dim)
        table = table.to(query.dtype)
        query = rotate(query.transpose(1, 2), table)
        key = rotate(key.transpose(1, 2), table)
        value = value.transpose(1, 2)
        group = self.heads // self.key_value_heads
        if group > 1:
            key = key.repeat_interleave(group, dim=1)
            value = value.repeat_interleave(group, dim=1)
        mixed = attend(query, key, value, ignored)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))


class GatedMlp(nn.Module):
    """Llama's SiLU-gated feed-forward part."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        dim, wide = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(dim, wide, bias=False)
        self.up_proj = nn.Linear(dim, wide, bias=False)
        self.down_proj = nn.Linear(wide, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class DecoderLayer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMlp(config)
        self.input_layernorm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, table: Tensor, ignored: Tensor | None = None) -> Tensor:
        """(B, T, D) with the rotary table -> (B, T, D)."""
        return self.feed_forward_part(self.attention_part(hidden, table, ignored))

    def attention_part(
        self, hidden: Tensor, table: Tensor, ignored: Tensor | None = None
    ) -> Tensor:
        """The first half: as above."""
        return hidden + self.self_attn(self.input_layernorm(hidden), table, ignored)

    def feed_forward_part(self, hidden: Tensor) -> Tensor:
        """The second half: (B, T, D) -> (B, T, D)."""
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class DecoderStack(nn.Module):
    """Embedding, layers and final norm: the part Hugging Face calls ``model``."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embeddings: Tensor, padding: Padding | None = None) -> Tensor:
        """Input embeddings (B, S, D) -> hidden states after the final norm (B, S, D)."""
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)
        ignored = None
        if padding is not None:
            positions, ignored = padding.apply(positions)
        # One table serves all layers.
        table = rotary_table(positions, self.config.head_dim, self.config.rope_theta)
        hidden = embeddings
        for layer in self.layers:
            hidden = layer(hidden, table, ignored)
        return self.norm(hidden)


class LanguageModel(nn.Module):
    """The decoder stack and, where wanted, the token head (used by discrete actions only)."""

    def __init__(self, config: LanguageConfig, token_head: bool) -> None:
        super().__init__()
        self.model = DecoderStack(config)
        if token_head:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, embeddings: Tensor, padding: Padding | None = None) -> Tensor:
        """Input embeddings (B, S, D) -> hidden states after the final norm (B, S, D)."""
        return self.model(embeddings, padding)

    def initialise(self) -> None:
        """Fresh values: word embeddings as small as Llama's."""
        nn.init.normal_(self.model.embed_tokens.weight, std=0.02)
