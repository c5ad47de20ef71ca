# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The synthetic bag: same options, same bytes; every robot's topics, inside its limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.recordings.bag_commands import RecordedCommands
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.bag_stream import stream
from hbvla_ros.recordings.bag_topics import find_topics
from hbvla_ros.recordings.fixture import FixtureOptions, Motion, write_fixture
from hbvla_ros.recordings.open import open_recordings
from hbvla_ros.recordings.recording import Given, Needs
from hbvla_ros.resources import share_path

ROBOTS = sorted(path.stem for path in share_path('config', 'robots').glob('*.yaml'))
PROFILE = RobotProfile.load('aloha_sim')


def needs_of(profile):
    cameras = tuple(camera.name for camera in profile.cameras)
    return Needs(cameras, len(profile.action_names), profile.robot)


def contents(bag):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in bag.iterdir()}


def test_same_options_same_bytes(tmp_path):
    bags = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        (tmp_path / name).mkdir()
        bags.append(tmp_path / name / 'bag')
        write_fixture(bags[-1], PROFILE, FixtureOptions(seconds=0.5, seed=seed))
    first, again, other = map(contents, bags)
    assert first == again
    assert set(first) == {'bag.mcap', 'metadata.yaml'} and first != other


@pytest.mark.parametrize('robot', ROBOTS)
def test_every_robot_makes_observations_and_commands(tmp_path, robot):
    profile = RobotProfile.load(robot)
    path, options = tmp_path / 'bag', FixtureOptions(seconds=0.6, size=(32, 24), instruction='go')
    write_fixture(path, profile, options)
    (recording,) = open_recordings(path, needs_of(profile), Given(profile=robot))
    # One set of images a period, and the last one may lack its joint states.
    assert len(recording) >= 0.6 * min(camera.rate for camera in profile.cameras) - 2
    seen = recording.observation(3)
    assert seen.instruction == 'go'
    assert all(image.shape == (24, 32, 3) for image in seen.images.values())
    motion = Motion(profile, 0)
    elapsed = seen.stamp - 1_700_000_000.0
    lag = np.abs(seen.proprioception - motion.at(elapsed - 0.04)).max()
    assert lag <= 0.04 * profile.velocity.max()
    recording.close()
    with BagFile(path) as bag:
        topics = find_topics(path, bag.topics, profile, needs_of(profile))
        commands = RecordedCommands(path, bag.topics, topics, profile)
        for message in stream(bag, commands.topics):
            commands.add(message.topic, message.content, message.received * 1e-9)
    times = 1_700_000_000.0 + np.array([0.0, 0.2, 0.4])
    told = commands.poses.at(times)
    # The goals of a gripper action are in no topic.
    unknown = [
        index for index, arm in zip(np.flatnonzero(profile.is_gripper), profile.arms, strict=True)
        if arm.gripper_adapter == 'parallel_gripper_action'
    ]  # fmt: skip
    assert np.isnan(told).all(axis=0).nonzero()[0].tolist() == unknown
    known = np.setdiff1d(np.arange(told.shape[1]), unknown)
    wanted = np.array([motion.at(time - 1_700_000_000.0) for time in times])
    joints = ~profile.is_gripper
    both = np.isin(np.arange(told.shape[1]), known) & joints
    # Some drivers take single precision.
    np.testing.assert_allclose(told[:, both], wanted[:, both], atol=2e-3)


@pytest.mark.parametrize('robot', ROBOTS)
def test_the_motion_keeps_the_limits(robot):
    profile = RobotProfile.load(robot)
    for seed in range(5):
        motion = Motion(profile, seed)
        poses = np.array([motion.at(t) for t in np.arange(0, 6, 0.01)])
        assert (poses >= profile.lower).all() and (poses <= profile.upper).all()
        assert (np.abs(np.diff(poses, axis=0)) <= 0.01 * profile.velocity).all()
        assert (np.ptp(poses, axis=0) > 1e-3).all()


def test_a_simulated_robot_has_a_clock(tmp_path):
    write_fixture(tmp_path / 'bag', PROFILE, FixtureOptions(seconds=0.3, simulated=True))
    (recording,) = open_recordings(tmp_path / 'bag', needs_of(PROFILE))
    assert 1.0 <= recording.observation(0).stamp < 1.3 and len(recording) >= 5


def test_the_command(tmp_path, capsys):
    out = tmp_path / 'bag'
    arguments = ['record-fixture', '--out', str(out), '--seconds', '0.2', '--seed', '3',
                 '--camera-size', '40x30', '--instruction', 'wave']  # fmt: skip
    assert main(arguments) == 0
    assert 'aloha_sim, 3 cameras' in capsys.readouterr().out
    (recording,) = open_recordings(out, needs_of(PROFILE))
    assert recording.instruction == 'wave'
    assert recording.observation(0).images['cam_high'].shape == (30, 40, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--camera-size', '64'], '--camera-size 64: write WIDTHxHEIGHT'),
        (['--camera-size', '64x4'], '--camera-size 64x4: must be 16 to 4096'),
        (['--seconds', '0'], '--seconds 0: must be 0.1 to 600'),
        (['--seed', '-1'], '--seed -1: must not be below 0'),
        (['--robot', 'r2d2'], "unknown robot 'r2d2'"),
        (['--instruction', ' '], '--instruction: is empty'),
        (['--out', '/'], '/: is there already'),
        (['--out', '/no/such/bag'], '/no/such/bag: there is no folder /no/such; make it first'),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, arguments, message):
    assert main(['record-fixture', '--out', str(tmp_path / 'bag'), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('hbvla: error: ') and message in error and error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_made_is_left(tmp_path, monkeypatch):
    def fail(*_args, **_named):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('hbvla_ros.recordings.fixture.BagWriter.commands', fail)
    from hbvla_ros.errors import HbvlaError

    with pytest.raises(HbvlaError, match='bag: cannot write it: No space left on device'):
        write_fixture(tmp_path / 'bag', PROFILE, FixtureOptions(seconds=0.2))
    assert list(Path(tmp_path).iterdir()) == []
