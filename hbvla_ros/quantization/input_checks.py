# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Bad input that can be found before the long work begins."""

from __future__ import annotations

import torch
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.progress import Progress
from hbvla_ros.vla.checkpoint import Checkpoint


def check_calibration(checkpoint: Checkpoint, calibration: CalibrationSet) -> None:
    """Refuse calibration inputs that were made for another network or platform.

    Raises:
        HbvlaError: there are none, or their cameras, image size, proprioception or chunk differ.
    """
    if not calibration.batches:
        raise HbvlaError('--calibration: no usable frame; record episodes with all cameras')
    for batch in (*calibration.batches, *calibration.held_out):
        _check_batch(checkpoint, batch)


def _check_batch(checkpoint: Checkpoint, batch: NetworkInputs) -> None:
    platform, config = checkpoint.platform, checkpoint.config
    told = f'platform {platform.name!r} has'
    channels = batch.pixel_values.shape[1]
    if channels != 6 * len(platform.cameras):
        raise HbvlaError(
            f'--calibration: frames of {channels // 6} cameras, but {told} '
            f'{len(platform.cameras)} ({", ".join(platform.cameras)})'
        )
    size = tuple(batch.pixel_values.shape[2:])
    if size != tuple(config.featurizer.image_size):
        raise HbvlaError(
            f'--calibration: images of {size[0]} x {size[1]}, the network takes '
            f'{" x ".join(map(str, config.featurizer.image_size))}'
        )
    width = 0 if batch.proprio is None else batch.proprio.shape[1]
    if width != platform.proprio_dim:
        raise HbvlaError(
            f'--calibration: proprioception of {width} values, but {told} proprio_dim '
            f'{platform.proprio_dim}'
        )
    if config.head == 'diffusion':
        chunk = None if batch.noise is None else tuple(batch.noise.shape[1:])
        if chunk != (platform.chunk, platform.action_dim):
            raise HbvlaError(
                f'--calibration: noise for chunks of {chunk}, but {told} chunk {platform.chunk} '
                f'and action_dim {platform.action_dim}'
            )


def check_weights(checkpoint: Checkpoint, skeleton: nn.Module, progress: Progress) -> None:
    """Refuse a checkpoint with a value that is not finite; reads every tensor once.

    Args:
        checkpoint: the folder.
        skeleton: the inference network, whose tensors count.
        progress: told of each tensor.

    Raises:
        HbvlaError: naming the tensor.
    """
    names = [name for name, _ in skeleton.named_parameters()]
    progress.stage('checking weights', len(names))
    for name in names:
        if not bool(torch.isfinite(checkpoint.tensor(name)).all()):
            raise HbvlaError(f'{name}: holds NaN or infinity; the checkpoint is damaged')
        progress.step()
    checkpoint.release()
