# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The probe pays on networks that have learnt something; random ones amplify every error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hbvla_ros.policy import Policy
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.network_inputs import NetworkInputs
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.export import save_checkpoint
from hbvla_ros.vla.network import OpenVLANetwork
from hbvla_ros.vla.platform import resolve_platform

STEPS = 120
OPTIONS = SignPlaneOptions(rounds=2, cycles=1)


def task(size: int, generator: torch.Generator) -> tuple[NetworkInputs, Tensor]:
    """Blocky images, an instruction of two, proprioception, and a rule that needs all three."""
    blocks = torch.randn(size, 12, 2, 2, generator=generator)
    pixels = blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)
    pixels = pixels + 0.3 * torch.randn(size, 12, 32, 32, generator=generator)
    proprio = torch.rand(size, 14, generator=generator) * 2 - 1
    turn = int(torch.randint(0, 2, (1,), generator=generator))
    ids = torch.tensor([[1, 5, 9, 13 + turn, 3]]).expand(size, 5)
    seen = blocks[:, :7].mean(dim=(2, 3)).repeat(1, 2)
    rows = [(proprio.roll(1, 1) * (turn - 0.5) + seen * row / 6).tanh() for row in (1, 2, 3)]
    return NetworkInputs(pixels, ids, proprio, None), torch.stack(rows, dim=1)


@pytest.fixture
def trained(tiny_checkpoint: Path) -> tuple[Checkpoint, torch.Generator]:
    """The tiny checkpoint after a few seconds of training."""
    checkpoint = Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))
    network = checkpoint.load_network(inference_only=False)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(STEPS):
        inputs, wanted = task(16, generator)
        loss = (network(*inputs.arguments()) - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_checkpoint(
        network, tiny_checkpoint, None, checkpoint.statistics, checkpoint.platform, step=7
    )
    return Checkpoint.open(tiny_checkpoint, checkpoint.platform), generator


def test_each_step_from_rtn_to_the_probe_lowers_the_action_error(
    trained: tuple[Checkpoint, torch.Generator], tmp_path: Path
) -> None:
    checkpoint, generator = trained
    calibration = CalibrationSet([task(8, generator)[0] for _ in range(12)], 96, {})
    held_out = [task(16, generator)[0] for _ in range(6)]
    reference = checkpoint.load_network()

    def error(*request: Any, calibrated: bool = True) -> float:
        out = tmp_path / 'out'
        data = calibration if calibrated else None
        quantize_checkpoint(checkpoint, Request(*request, options=OPTIONS), out, data, force=True)
        return relative_difference(Policy.load(out).network, reference, held_out)

    rtn = error('rtn', 1.0, 0, calibrated=False)
    plain = error('signplane', 1.0, 0, 'none')
    probed = error('signplane', 1.0, 0, 'action')
    two_plain = error('signplane', 2.0, 0, 'none')
    two_probed = error('signplane', 2.0, 0, 'action')
    assert plain < 0.6 * rtn
    assert probed < plain
    assert two_plain < 0.6 * plain
    assert two_probed < two_plain


def relative_difference(
    network: OpenVLANetwork, reference: OpenVLANetwork, batches: list[NetworkInputs]
) -> float:
    """Relative root mean square difference of the actions."""
    with torch.no_grad():
        wanted = torch.cat([reference(*batch.arguments()) for batch in batches])
        found = torch.cat([network(*batch.arguments()) for batch in batches])
    return float((found - wanted).norm() / wanted.norm())
