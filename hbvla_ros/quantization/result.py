# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a quantization found out, for the report and for whoever called it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbvla_ros.packed.manifest import Manifest
from hbvla_ros.quantization.calibration import Picture
from hbvla_ros.quantization.token_types import NAMES, decoder_patches, decoder_token_types
from hbvla_ros.vla.network import OpenVLANetwork


@dataclass(frozen=True)
class FrameImportance:
    """How much the tokens of one calibration frame matter to the decoder.

    Token weights are the mean over the layers that have any; over all positions of the decoder's
    sequence their mean is about one.

    Attributes:
        picture: the frame.
        grids: camera to float32 (rows, columns), the token weights of its patches.
        shares: token type to its share of all weight, 0 to 1.
    """

    picture: Picture
    grids: Mapping[str, NDArray[np.float32]]
    shares: Mapping[str, float]

    @staticmethod
    def of(picture: Picture, weights: Tensor, network: OpenVLANetwork) -> FrameImportance:
        """Sort token weights by camera and type.

        Args:
            picture: the frame.
            weights: float32 (S,), at each position of the decoder's sequence.
            network: says what stands where.
        """
        patches = decoder_patches(network)
        grids = {
            camera: weights[place.start : place.stop].reshape(place.rows, place.columns).numpy()
            for camera, place in patches.items()
        }
        # The prompt is what all the other positions leave.
        rest = len(weights) - len(decoder_token_types(network, 1))
        types = decoder_token_types(network, 1 + rest).long()
        sums = torch.zeros(len(NAMES)).index_add_(0, types, weights.float())
        shares = (sums / sums.sum().clamp_min(torch.finfo(sums.dtype).tiny)).tolist()
        present = set(types.tolist())
        return FrameImportance(
            picture, grids, {NAMES[k]: share for k, share in enumerate(shares) if k in present}
        )


@dataclass(frozen=True)
class QuantizationResult:
    """What was written, and what the report shows besides.

    Attributes:
        manifest: of the deployed folder.
        components: layer name to component.
        saliency: layer name to the spectrum of its column saliency; none without calibration.
        importance: of a few calibration frames; none without a probe.
    """

    manifest: Manifest
    components: Mapping[str, str]
    saliency: Mapping[str, list[float]] = field(default_factory=dict)
    importance: Sequence[FrameImportance] = ()


def action_error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> dict[str, Any]:
    """Difference of two networks' actions.

    Args:
        found: actions of the quantized network, (B, K, A) of each batch.
        wanted: those of the full-precision network.

    Returns:
        ``frames``; ``rms``, in normalised actions; ``relative_rms``, the same over the root mean
        square of the wanted actions about their mean over frames, None where all frames want the
        same.
    """
    one, other = torch.cat(list(found)).double(), torch.cat(list(wanted)).double()
    spread = float((other - other.mean(dim=0)).square().mean().sqrt())
    rms = float((one - other).square().mean().sqrt())
    return {
        'frames': len(other),
        'rms': rms,
        'relative_rms': rms / spread if spread > 0 else None,
    }
