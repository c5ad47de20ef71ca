# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a quantization found out, for the report and for whoever called it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hbvla_ros.packed.manifest import Manifest
from hbvla_ros.quantization.calibration import Picture


@dataclass(frozen=True)
class FrameImportance:
    """How much the tokens of one calibration frame matter to the decoder.

    Attributes:
        picture: the frame.
        weights: float32 (S,), token weight at each position of the decoder's sequence, mean over
            the layers that have any; their mean over the positions is about one.
    """

    picture: Picture
    weights: Tensor


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
