# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The OpenVLA-OFT network: images, words and proprioception in, one action chunk out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.config import NetworkConfig
from hbvla_ros.vla.heads import (
    DiffusionHead,
    DiffusionSchedule,
    RegressionHead,
    discrete_values,
    timestep_embedding,
)
from hbvla_ros.vla.language_model import LanguageModel, Padding
from hbvla_ros.vla.platform import Platform
from hbvla_ros.vla.projectors import InputProjector, Projector
from hbvla_ros.vla.towers import VisionBackbone


class Context(NamedTuple):
    """What does not change while a chunk is computed.

    Attributes:
        features: (B, n * patches, vision dim), both towers before the projector.
        prefix: (B, 1 + n * patches + proprio, D): BOS, patches, proprio token.
        text: (B, T - 1, D): prompt without BOS, with the empty token.
        stop: (B, 1, D).
    """

    features: Tensor
    prefix: Tensor
    text: Tensor
    stop: Tensor


class Encoded(NamedTuple):
    """One pass through the language model.

    Attributes:
        last_hidden_state: (B, S, D) after the final norm, over the whole sequence.
        action_hidden_states: (B, K * slots per step, D), the slice the head reads.
        features: (B, n * patches, vision dim), the towers' patch features.
    """

    last_hidden_state: Tensor
    action_hidden_states: Tensor
    features: Tensor


class OpenVLANetwork(nn.Module):
    """Static in shape per camera count and prompt length; tensors are named as in the files.

    Args:
        config: what the network is made of.
        platform: chunk, action and proprio widths, slots, diffusion steps.
        inference_only: leave out the parameters no action depends on (last block and final norm
            of each tower, attention pooling, and ``lm_head`` unless actions are discrete).

    Raises:
        HbvlaError: slots per step other than the action width for a head that needs one a value.
    """

    def __init__(
        self, config: NetworkConfig, platform: Platform, inference_only: bool = False
    ) -> None:
        super().__init__()
        self.config, self.platform = config, platform
        dim = config.language.hidden_size
        if config.head != 'l1' and platform.slots_per_step != platform.action_dim:
            raise HbvlaError(
                f'platform {platform.name!r}: a {config.head} head needs action_slots_per_step '
                f'{platform.action_dim}, got {platform.slots_per_step}'
            )
        self.vision_backbone = VisionBackbone(config, inference_only)
        self.projector = Projector(config.vision_dim, dim)
        token_head = config.head == 'discrete' or (config.has_language_head and not inference_only)
        self.language_model = LanguageModel(config.language, token_head)
        self._add_side_modules(dim)
        self.schedule: DiffusionSchedule | None = None
        if config.head == 'diffusion':
            self.schedule = DiffusionSchedule.squared_cosine(
                platform.diffusion_steps_train, platform.diffusion_steps_inference
            )
        self.initialise()

    def _add_side_modules(self, dim: int) -> None:
        config, platform = self.config, self.platform
        sizes = (
            platform.slots_per_step * dim,
            config.head_hidden_size or dim,
            platform.action_dim,
            config.head_blocks,
        )
        if config.head == 'l1':
            self.action_head: nn.Module = RegressionHead(*sizes)
        elif config.head == 'diffusion':
            self.action_head = DiffusionHead(*sizes)
            self.noisy_action_projector = InputProjector(1, dim)
        if platform.proprio_dim:
            self.proprio_projector = InputProjector(platform.proprio_dim, dim)

    def initialise(self) -> None:
        """Fresh values for what torch's own initialisation leaves at zero or too large."""
        if self.projector.fc1.weight.is_meta:
            return
        self.vision_backbone.featurizer.initialise()
        self.vision_backbone.fused_featurizer.initialise()
        self.language_model.initialise()

    def context(self, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor | None) -> Context:
        """Everything before the language model (spec section 5.4).

        Args:
            pixel_values: (B, 6 n, H, W).
            input_ids: int64 (B, T), BOS first, empty token last.
            proprio: (B, P) normalised, or None where the network takes none.
        """
        embed = self.language_model.model.embed_tokens
        words = embed(input_ids)
        stop = embed(input_ids.new_full((len(input_ids), 1), self.config.stop_token_id))
        language = None
        if self.config.film:
            # BOS, prompt, empty token and stop token all count (spec section 8).
            language = torch.cat([words, stop], dim=1).mean(dim=1)
        features = self.vision_backbone(pixel_values.to(self.pixel_dtype), language)
        prefix = [words[:, :1], self.projector(features)]
        if self.platform.proprio_dim:
            if proprio is None:
                raise HbvlaError(f'platform {self.platform.name!r} needs proprioception, got none')
            prefix.append(self.proprio_projector(proprio.to(words.dtype)).unsqueeze(1))
        joined = torch.cat([part.to(words.dtype) for part in prefix], dim=1)
        return Context(features, joined, words[:, 1:], stop)

    @property
    def pixel_dtype(self) -> torch.dtype:
        """Type the towers take images in."""
        return self.vision_backbone.featurizer.pos_embed.dtype

    def embeddings(
        self,
        context: Context,
        noisy_actions: Tensor | None = None,
        timestep: Tensor | None = None,
    ) -> Tensor:
        """The language model's input (B, S, D).

        Args:
            context: what :meth:`context` returned.
            noisy_actions: (B, K, A) in place of the zeroed action slots (diffusion only).
            timestep: (B,) diffusion time step (diffusion only).
        """
        prefix, text, stop = context.prefix, context.text, context.stop
        batch, _, dim = prefix.shape
        parts = [prefix]
        if timestep is not None:
            parts.append(timestep_embedding(timestep, dim).to(prefix.dtype).unsqueeze(1))
        if noisy_actions is None:
            slots = prefix.new_zeros(batch, self.platform.action_slots, dim)
        else:
            scalars = noisy_actions.reshape(batch, -1, 1).to(prefix.dtype)
            slots = self.noisy_action_projector(scalars).to(prefix.dtype)
        return torch.cat([*parts, text, slots, stop], dim=1)

    def run_language_model(
        self,
        context: Context,
        noisy_actions: Tensor | None = None,
        timestep: Tensor | None = None,
        padded: Tensor | None = None,
    ) -> Encoded:
        """One pass over the sequence; arguments as for :meth:`embeddings` and :meth:`encode`."""
        embeddings = self.embeddings(context, noisy_actions, timestep)
        padding = None
        if padded is not None:
            start = context.prefix.shape[1] + (timestep is not None)
            padding = Padding(start, padded)
        hidden = self.language_model(embeddings, padding)
        return Encoded(hidden, self.action_states(hidden), context.features)

    def action_states(self, hidden: Tensor) -> Tensor:
        """The slice (B, K * slots per step, D) of the last states (B, S, D) that the head reads."""
        slots = self.platform.action_slots
        # Slot a reads the state one position before its own (next-token alignment), so the slice
        # starts at the empty token and leaves out the last slot's and the stop token's states.
        start = hidden.shape[1] - slots - 2
        return hidden[:, start : start + slots]

    def encode(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        proprio: Tensor | None = None,
        noisy_actions: Tensor | None = None,
        timestep: Tensor | None = None,
        padded: Tensor | None = None,
    ) -> Encoded:
        """One differentiable pass up to the action head.

        Args:
            pixel_values: as for :meth:`context`.
            input_ids: as for :meth:`context`.
            proprio: as for :meth:`context`.
            noisy_actions: as for :meth:`embeddings`.
            timestep: as for :meth:`embeddings`.
            padded: int64 (B,), for prompts of several lengths: how many ids after BOS fill the
                row up to the longest. The result is that of each row without them.

        Raises:
            HbvlaError: padding and FiLM, which averages over the prompt.
        """
        if padded is not None and self.config.film:
            raise HbvlaError('prompts of several lengths: not in one batch of a network with FiLM')
        context = self.context(pixel_values, input_ids, proprio)
        return self.run_language_model(context, noisy_actions, timestep, padded)

    def decode(self, action_hidden_states: Tensor) -> Tensor:
        """Head output (B, K, A): normalised actions, or predicted noise for diffusion."""
        if self.config.head == 'discrete':
            return self.discrete_actions(action_hidden_states)
        batch = len(action_hidden_states)
        return self.action_head(action_hidden_states.reshape(batch, self.platform.chunk, -1))

    def discrete_actions(self, action_hidden_states: Tensor) -> Tensor:
        """Normalised actions (B, K, A) of the most likely action tokens (spec section 5.7)."""
        logits = self.language_model.lm_head(action_hidden_states)
        values = discrete_values(logits, self.config.action_vocabulary, self.config.action_bins)
        return values.reshape(len(values), self.platform.chunk, self.platform.action_dim)

    def denoise(self, context: Context, noise: Tensor | None) -> Tensor:
        """All DDIM steps from noise (B, K, A); vision and projector have run once before."""
        if self.schedule is None:
            raise HbvlaError('this network has no diffusion head')
        platform, batch = self.platform, len(context.prefix)
        if noise is None:
            noise = torch.randn(
                batch, platform.chunk, platform.action_dim, device=context.prefix.device
            )
        sample = noise.float()
        for timestep in self.schedule.timesteps:
            times = torch.full((batch,), timestep, device=sample.device)
            encoded = self.run_language_model(context, sample, times)
            predicted = self.decode(encoded.action_hidden_states).float()
            sample = self.schedule.step(sample, predicted, timestep)
        return sample

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        proprio: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Normalised actions (B, K, A).

        Args:
            pixel_values: (B, 6 n, H, W), n images in camera order.
            input_ids: int64 (B, T) of equal length, BOS first, empty token last.
            proprio: (B, P) normalised, or None where the network takes none.
            noise: (B, K, A) start of the denoising; drawn here if None (diffusion only).
        """
        context = self.context(pixel_values, input_ids, proprio)
        if self.config.head == 'diffusion':
            return self.denoise(context, noise)
        return self.decode(self.run_language_model(context).action_hidden_states)
