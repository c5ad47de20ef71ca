# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From stored frames to pixel values, on batches, with small augmentation."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

# Side of the centre crop of area 0.9, as in deployment (spec section 3, step 3).
CROP_SIDE = math.sqrt(0.9)


def crop(frames: torch.Tensor, jitter: float, generator: torch.Generator | None) -> torch.Tensor:
    """Crop of area 0.9, corner-aligned bilinear as in deployment, shifted by up to `jitter` pixels.

    Args:
        frames: float (B, 3, S, S), 0 to 1.
        jitter: largest shift along each axis in pixels; 0 gives the deployed centre crop.
        generator: source of randomness; needed when jitter is not 0.
    """
    count, _, size, _ = frames.shape
    theta = torch.zeros(count, 2, 3, device=frames.device)
    theta[:, 0, 0] = theta[:, 1, 1] = CROP_SIDE
    if jitter:
        shift = torch.rand(count, 2, generator=generator).to(frames.device) * 2 - 1
        theta[:, :, 2] = shift * (jitter * 2 / (size - 1))
    grid = functional.affine_grid(theta, list(frames.shape), align_corners=True)
    return functional.grid_sample(frames, grid, 'bilinear', 'border', align_corners=True)


def jitter_colours(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Small changes of brightness, contrast and white balance of each image: (B, 3, S, S)."""
    count = len(images)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).to(images.device) * 2 - 1

    factor = (1 + 0.1 * draw(count, 1, 1, 1)) * (1 + 0.04 * draw(count, 3, 1, 1))
    # Contrast turns about mid grey.
    return torch.addcmul(0.06 * draw(count, 1, 1, 1) + 0.5 - 0.5 * factor, images, factor)


def pixel_values(
    frames: torch.Tensor,
    statistics: torch.Tensor,
    jitter: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Network input from stored frames.

    Args:
        frames: uint8 (B, cameras, S, S, 3), after the policy resize and before the crop.
        statistics: float (2, 2, 3): for each tower mean and standard deviation of each channel.
        jitter: largest shift of the crop in pixels.
        generator: source of the augmentation; None leaves it out.

    Returns:
        float32 (B, 6 * cameras, S, S), DINOv2 channels then SigLIP channels for each camera.
    """
    batch, cameras, size, _, _ = frames.shape
    images = frames.flatten(0, 1).permute(0, 3, 1, 2).float().mul_(1 / 255.0)
    images = crop(images, jitter if generator is not None else 0.0, generator)
    if generator is not None:
        images = jitter_colours(images, generator)
    else:
        # Deployment goes through uint8 here, truncating x * 255.5.
        images = torch.floor(images.clamp(0, 1) * 255.5).clamp(max=255) / 255.0
    mean, deviation = statistics[:, 0, :, None, None], statistics[:, 1, :, None, None]
    towers = [torch.addcmul(-mean[t] / deviation[t], images, 1 / deviation[t]) for t in range(2)]
    return torch.stack(towers, dim=1).reshape(batch, cameras * 6, size, size)
