# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The same episode, recorded in every way, gives the network the same inputs."""

from __future__ import annotations

import pytest
import torch

from hbvla_ros.cli.main import main
from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.manifest import read_manifest
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform


@pytest.fixture
def checkpoint(make_tiny_checkpoint, record):
    folder = make_tiny_checkpoint(
        platform={'cameras': record.needs.cameras, 'robot': 'aloha_sim'}, config={}
    )
    return Checkpoint.open(folder, resolve_platform(folder))


def joined(data):
    pixels = torch.cat([batch.pixel_values for batch in data.batches])
    ids = torch.cat([batch.input_ids for batch in data.batches])
    return pixels, torch.cat([batch.proprio for batch in data.batches]), ids


@pytest.fixture
def exact(checkpoint, tmp_path, episode, record):
    """Inputs of all frames in order, from images that were never compressed."""
    path = record.hdf5(tmp_path / 'exact.hdf5', episode)
    return joined(read_calibration(path, checkpoint, 100, 0))


WAYS = {
    'simulator': (lambda r, p, e: r.npz(p / 'episode_0.npz', e), False),
    'hdf5 jpeg': (lambda r, p, e: r.hdf5(p / 'episode_0.hdf5', e, compress=True), False),
    'mcap jpeg': (lambda r, p, e: r.bag(p / 'bag', e), False),
    'sqlite raw': (lambda r, p, e: r.bag(p / 'bag', e, storage=r.sqlite, raw=True), True),
    'simulated time': (lambda r, p, e: r.bag(p / 'bag', e, clock=True, raw=True), True),
}


@pytest.mark.parametrize('way', WAYS)
def test_same_inputs(way, checkpoint, tmp_path, episode, record, exact):
    write, lossless = WAYS[way]
    data = read_calibration(write(record, tmp_path, episode), checkpoint, 100, 0)
    assert data.frames == len(episode.poses) and data.description['skipped'] == 0
    pixels, proprio, ids = joined(data)
    assert torch.equal(ids, exact[2])
    torch.testing.assert_close(proprio, exact[1], rtol=0, atol=1e-6)
    if lossless:
        assert torch.equal(pixels, exact[0])
    else:
        # JPEG moves pixels a little; another frame or camera, or swapped colours, move them a lot.
        apart = (pixels - exact[0]).abs().mean(dim=(1, 2, 3))
        others = (pixels[:1] - exact[0][1:]).abs().mean(dim=(1, 2, 3))
        swapped = (pixels - exact[0][:, [2, 1, 0, 5, 4, 3] * 2]).abs().mean(dim=(1, 2, 3))
        assert apart.max() < 0.1 < 0.5 * min(others.min(), swapped.min())


def test_bag_of_a_robot_without_shipped_profile(make_tiny_checkpoint, tmp_path, episode, record):
    folder = make_tiny_checkpoint(
        'other', platform={'cameras': record.needs.cameras, 'robot': 'my_robot'}
    )
    checkpoint = Checkpoint.open(folder, resolve_platform(folder))
    path = record.bag(tmp_path / 'bag', episode)
    with pytest.raises(HbvlaError, match="none is shipped for robot 'my_robot'; give the path"):
        read_calibration(path, checkpoint, 4, 0)
    with pytest.raises(HbvlaError, match="is for robot 'aloha_sim', the policy for 'my_robot'"):
        read_calibration(path, checkpoint, 4, 0, robot='aloha_sim')


def test_instruction_that_was_given(checkpoint, tmp_path, episode, record):
    path = record.bag(tmp_path / 'bag', episode, instruction=None)
    with pytest.raises(HbvlaError, match='give it with --instruction'):
        read_calibration(path, checkpoint, 4, 0)
    data = read_calibration(path, checkpoint, 4, 0, 2, instruction='put red cube')
    assert {picture.instruction for picture in data.pictures} == {'put red cube'}
    assert data.description['source'] == 'rosbag'
    assert data.description['held_out_episodes'] == 'same'


def test_quantize_on_a_bag(checkpoint, tmp_path, episode, record, capsys):
    bag = record.bag(tmp_path / 'bag', episode, instruction=None)
    out = tmp_path / 'out'
    arguments = ['quantize', str(checkpoint.folder), '--out', str(out), '--calibration', str(bag)]
    arguments += ['--method', 'rtn', '--frames', '3']
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f'hbvla: error: {bag}: has no instruction topic; give it with --instruction'
    )
    assert not out.exists()
    assert main([*arguments, '--instruction', 'wave', '--calibration-profile', 'elsewhere']) == 2
    assert "unknown robot 'elsewhere'" in capsys.readouterr().err.splitlines()[-1]
    given = ['--instruction', 'put red cube', '--calibration-profile', 'aloha_sim']
    assert main([*arguments, *given]) == 0
    calibration = read_manifest(out).calibration
    assert calibration is not None
    assert (calibration['source'], calibration['frames'], calibration['episodes']) == (
        'rosbag', 3, 1,
    )  # fmt: skip
