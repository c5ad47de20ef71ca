# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The refinement as part of the pipeline: what lands in the folder, resume, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.pipeline import Request, SilentProgress, quantize_checkpoint
from hbvla_ros.quantization.result import action_error
from hbvla_ros.quantization.resume import work_path
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import PLATFORMS, resolve_platform

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'
REFINED = Request('rtn', probe='none', refine=25)


def open_checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint.open(folder, resolve_platform(folder, None))


def test_the_folder_holds_the_refined_network(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 16, 0, held_out=8, refine_frames=24)
    plain = quantize_checkpoint(checkpoint, Request('rtn', probe='none'), tmp_path / 'plain', data)
    refined = quantize_checkpoint(checkpoint, REFINED, tmp_path / 'refined', data).manifest
    assert refined.stored_bits_per_weight == plain.manifest.stored_bits_per_weight
    assert plain.manifest.refinement is None and refined.refinement is not None
    assert plain.manifest.action_error is not None and refined.action_error is not None
    before = plain.manifest.action_error['relative_rms']
    assert (refined.refinement['steps'], refined.refinement['frames']) == (25, 24)
    assert refined.refinement['relative_rms_before'] == pytest.approx(before)
    # What the manifest says is what the folder does, loaded like any other.
    reference = checkpoint.load_network()
    network = Policy.load(tmp_path / 'refined', residency='packed').network
    with torch.no_grad():
        found = [network(*batch.arguments()) for batch in data.held_out]
        wanted = [reference(*batch.arguments()) for batch in data.held_out]
    again = action_error(found, wanted)['relative_rms']
    assert refined.action_error['relative_rms'] == pytest.approx(again, rel=0.02)
    assert refined.action_error['relative_rms'] != pytest.approx(before, rel=1e-3)
    for one in (plain.manifest, refined):
        norm = 'language_model.model.layers.0.input_layernorm.weight'
        changed = one is refined
        folder = PackedFolder.open(tmp_path / ('refined' if changed else 'plain'))
        same = torch.equal(folder.tensor(norm), checkpoint.tensor(norm).bfloat16())
        assert same != changed


def test_trained_signs_are_those_of_the_folder(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 16, 0, held_out=8, refine_frames=24)
    request = dataclasses.replace(REFINED, refine=80, refine_signs=True)
    manifests, planes = [], []
    for one in (REFINED, request):
        out = tmp_path / f'signs_{one.refine_signs}'
        manifests.append(quantize_checkpoint(checkpoint, one, out, data).manifest)
        folder = PackedFolder.open(out)
        planes.append({name: layer.tensors()['planes'] for name, layer in folder.layers.items()})
    assert [one.refinement['signs'] for one in manifests if one.refinement] == [False, True]
    assert manifests[0].stored_bits_per_weight == manifests[1].stored_bits_per_weight
    assert any(not torch.equal(planes[0][name], planes[1][name]) for name in planes[0])
    network = Policy.load(tmp_path / 'signs_True', residency='packed').network
    reference = checkpoint.load_network()
    with torch.no_grad():
        found = [network(*batch.arguments()) for batch in data.held_out]
        wanted = [reference(*batch.arguments()) for batch in data.held_out]
    assert manifests[1].action_error is not None
    again = action_error(found, wanted)['relative_rms']
    assert manifests[1].action_error['relative_rms'] == pytest.approx(again, rel=0.02)


class StopAfter(SilentProgress):
    """Ctrl-C in the middle of the layers."""

    def __init__(self, layers: int) -> None:
        self.left = layers

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        self.left -= entry is not None
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_in_the_same_bytes(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    data = read_calibration(episodes_folder, checkpoint, 16, 0, held_out=4)
    quantize_checkpoint(checkpoint, REFINED, tmp_path / 'whole', data)
    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(checkpoint, REFINED, tmp_path / 'out', data, StopAfter(9))
    assert work_path(tmp_path / 'out').is_dir()
    quantize_checkpoint(checkpoint, REFINED, tmp_path / 'out', data, resume=True)
    for path in sorted((tmp_path / 'whole').iterdir()):
        assert path.read_bytes() == (tmp_path / 'out' / path.name).read_bytes(), path.name


def test_what_cannot_be_refined_is_refused_before_the_work(
    tiny_checkpoint: Path, tmp_path: Path, episodes_folder: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    with pytest.raises(HbvlaError, match='--refine: needs --calibration'):
        quantize_checkpoint(checkpoint, REFINED, tmp_path / 'out')
    data = read_calibration(episodes_folder, checkpoint, 4, 0)
    with pytest.raises(HbvlaError, match='--refine -1: must be 0 or more'):
        quantize_checkpoint(
            checkpoint, Request('rtn', probe='none', refine=-1), tmp_path / 'out', data
        )
    for request, message in (
        (Request('rtn', probe='none', refine_frames=8), 'frames: nothing is refined; add --refine'),
        (Request('rtn', probe='none', refine_signs=True), 'signs: nothing is refined; add --refin'),
        (Request('rtn', probe='none', refine=1, refine_frames=0), 'frames 0: at least 1 is needed'),
    ):
        with pytest.raises(HbvlaError, match=message):
            quantize_checkpoint(checkpoint, request, tmp_path / 'out', data)
    folder = GOLDEN / 'libero_diffusion'
    diffusion = Checkpoint.open(folder, PLATFORMS['libero'])
    with pytest.raises(HbvlaError, match='has a diffusion head, --refine takes regression'):
        quantize_checkpoint(diffusion, REFINED, tmp_path / 'out', data)
    assert not list(tmp_path.glob('out*'))
