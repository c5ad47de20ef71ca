# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The fused vision backbone: a DINOv2 and a SigLIP vision transformer, with optional FiLM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbvla_ros.vla.attention import attend
from hbvla_ros.vla.config import NetworkConfig, TowerConfig

LAYER_NORM_EPSILON = 1e-6


class LayerScale(nn.Module):
    """Per-channel factor on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(dim))

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return hidden * self.scale_factor


class Mlp(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.fc2(functional.gelu(self.fc1(hidden)))


class Attention(nn.Module):
    """Self-attention with one fused query, key and value projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        batch, tokens, dim = hidden.shape
        qkv = self.qkv(hidden).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm transformer block; FiLM acts between attention and MLP (spec section 8)."""

    def __init__(self, config: TowerConfig, language_dim: int | None) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.attn = Attention(dim, config.num_heads)
        self.ls1 = LayerScale(dim) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.mlp = Mlp(dim, config.mlp_dim)
        self.ls2 = LayerScale(dim) if config.layer_scale else nn.Identity()
        if language_dim is not None:
            self.scale = nn.Linear(language_dim, dim)
            self.shift = nn.Linear(language_dim, dim)

    def forward(self, hidden: Tensor, language: Tensor | None) -> Tensor:
        """Run on (B, T, dim); ``language`` (B, D) modulates every token if FiLM is used."""
        return self.feed_forward_part(self.attention_part(hidden, language))

    def attention_part(self, hidden: Tensor, language: Tensor | None) -> Tensor:
        """The first half, FiLM included: as above."""
        hidden = hidden + self.ls1(self.attn(self.norm1(hidden)))
        if language is not None:
            factor = 1 + self.scale(language).unsqueeze(1)
            hidden = hidden * factor + self.shift(language).unsqueeze(1)
        return hidden

    def feed_forward_part(self, hidden: Tensor) -> Tensor:
        """The second half: (B, T, dim) -> (B, T, dim)."""
        return hidden + self.ls2(self.mlp(self.norm2(hidden)))


class PatchEmbedding(nn.Module):
    """Non-overlapping patches through one convolution."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, patches, dim).

        The patches do not overlap, so the convolution is one matrix product; as such it is faster,
        above all backwards.
        """
        batch, channels, height, width = images.shape
        side = self.proj.stride[0]
        rows, columns = height // side, width // side
        patches = images[:, :, : rows * side, : columns * side]
        patches = patches.reshape(batch, channels, rows, side, columns, side)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        return functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class AttentionPool(nn.Module):
    """SigLIP's pooling head: parameters of the checkpoint only, the policy never runs it."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.mlp = Mlp(dim, config.mlp_dim)


class Tower(nn.Module):
    """One vision transformer; its output is that of the last block but one, without norm."""

    def __init__(self, config: TowerConfig, language_dim: int | None, inference_only: bool) -> None:
        super().__init__()
        dim = config.embed_dim
        self.prefix_tokens = config.prefix_tokens
        self.active_blocks = config.depth - 1
        if config.has_cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.num_reg_tokens:
            self.reg_token = nn.Parameter(torch.zeros(1, config.num_reg_tokens, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, dim))
        self.patch_embed = PatchEmbedding(config)
        blocks = self.active_blocks if inference_only else config.depth
        self.blocks = nn.ModuleList(Block(config, language_dim) for _ in range(blocks))
        if not inference_only:
            self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
            if config.attention_pool:
                self.attn_pool = AttentionPool(config)

    def forward(self, images: Tensor, language: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and, with FiLM, (B, D) -> patch features (B, patches, dim)."""
        hidden = self.patch_embed(images) + self.pos_embed
        batch = len(hidden)
        # The position embedding belongs to the patches alone; the prefix gets none.
        prefix = [
            getattr(self, name).expand(batch, -1, -1)
            for name in ('cls_token', 'reg_token')
            if hasattr(self, name)
        ]
        if prefix:
            hidden = torch.cat([part.to(hidden.dtype) for part in prefix] + [hidden], dim=1)
        for index in range(self.active_blocks):
            hidden = self.blocks[index](hidden, language)
        return hidden[:, self.prefix_tokens :]

    def initialise(self) -> None:
        """Fresh values for the tokens and position embedding."""
        for name in ('cls_token', 'reg_token', 'pos_embed'):
            if hasattr(self, name):
                nn.init.trunc_normal_(getattr(self, name), std=0.02)


class VisionBackbone(nn.Module):
    """Both towers on every image; features are concatenated, DINOv2 first (spec section 5.1)."""

    def __init__(self, config: NetworkConfig, inference_only: bool = False) -> None:
        super().__init__()
        language_dim = config.language.hidden_size if config.film else None
        self.featurizer = Tower(config.featurizer, language_dim, inference_only)
        self.fused_featurizer = Tower(config.fused_featurizer, language_dim, inference_only)

    def forward(self, pixel_values: Tensor, language: Tensor | None = None) -> Tensor:
        """Encode every image on its own.

        Args:
            pixel_values: (B, 6 n, H, W), per image three DINOv2 then three SigLIP channels.
            language: (B, D) mean word embedding where FiLM is used, else None.

        Returns:
            (B, n * patches, dim of both towers), images one after another.
        """
        batch, channels, height, width = pixel_values.shape
        images = channels // 6
        stacked = pixel_values.reshape(batch * images, 6, height, width)
        if language is not None:
            language = language.repeat_interleave(images, dim=0)
        features = torch.cat(
            [
                self.featurizer(stacked[:, :3], language),
                self.fused_featurizer(stacked[:, 3:], language),
            ],
            dim=2,
        )
        return features.reshape(batch, images * features.shape[1], features.shape[2])
