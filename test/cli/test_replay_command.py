# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla replay`` from the command line: report, JSON, thresholds, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = tuple(camera.name for camera in PROFILE.cameras)


@pytest.fixture
def bag(tmp_path):
    options = FixtureOptions(seconds=0.8, instruction='put the red cube into the bucket')
    write_fixture(tmp_path / 'bag', PROFILE, options)
    return tmp_path / 'bag'


@pytest.fixture
def checkpoint(make_tiny_checkpoint):
    return make_tiny_checkpoint(
        platform={'robot': 'aloha_sim', 'cameras': CAMERAS, 'chunk': 10, 'step': 0.04}
    )


def replay(*arguments):
    return main(['replay', *map(str, arguments)])


def test_text_json_and_report(bag, checkpoint, tmp_path, capsys):
    out = tmp_path / 'report.html'
    options = [bag, '--checkpoint', checkpoint, '--latency', '0.05', '--degrade', 'reorder-joints']
    assert replay(*options, '--out', out) == 0
    text = capsys.readouterr().out
    assert re.search(r'inferences +\d+: \d+ accepted', text) and f'report         {out}' in text
    page = out.read_text(encoding='utf-8')
    assert 'Faults were put into the recording: reorder-joints.' in page
    assert page.count('<svg') == 3 and 'left elbow' in page and 'src="http' not in page
    assert replay(*options, '--json') == 0
    report = json.loads(capsys.readouterr().out)
    assert report['digests']['chunks'][:16] in text and report['settings']['threads'] == 1
    assert report['checkpoint'].startswith('tiny@') and report['robot'] == 'aloha_sim'
    # Random weights: nothing is expected of the error but to be there.
    assert report['open_loop_error']['joints_rad'] > 0
    assert replay(*options, '--json') == 0
    assert json.loads(capsys.readouterr().out) == report


def test_everything_injected(bag, checkpoint, capsys):
    status = replay(
        bag, '--checkpoint', checkpoint, '--latency', '0.04,0.06', '--latency-seed', '3',
        '--spike', '0.2@0.1', '--missing', '0.4', '--degrade', 'drop-camera:cam_high@0.5',
        '--degrade', 'reorder-joints', '--arms', 'recorded', '--against', 'poses',
        '--replan-fraction', '0.3', '--hold-on-loss', '--inference-deadline', '0.15',
        '--temporal-ensemble', '0.5', '--json',
    )  # fmt: skip
    assert status == 0
    report = json.loads(capsys.readouterr().out)
    settings = report['settings']
    assert settings['degradations'] == ['drop-camera:cam_high@0.5', 'reorder-joints']
    assert settings['events'] == ['0.2 s at 0.1 s', 'lost at 0.4 s']
    assert settings['temporal_ensemble'] == 0.5
    outcomes = report['inferences']['outcomes']
    assert outcomes['lost: no reply'] == 1
    assert outcomes['dropped: later than the deadline of # s'] == 1


def test_a_report_of_nothing(bag, checkpoint, tmp_path, capsys):
    """No inference at all is a result, where a fault was asked for."""
    out = tmp_path / 'report.html'
    status = replay(
        bag, '--checkpoint', checkpoint, '--degrade', 'drop-camera', '--out', out, '--json'
    )
    assert status == 0
    report = json.loads(capsys.readouterr().out)
    assert report['inferences']['started'] == 0 and report['open_loop_error'] is None
    assert 'no image from cam_high' in out.read_text(encoding='utf-8')
    options = [bag, '--checkpoint', checkpoint, '--degrade', 'drop-camera', '--max-error', '1']
    assert replay(*options) == 2
    assert 'no row of a chunk met a recorded command' in capsys.readouterr().err


def test_a_threshold_decides_the_exit_status(bag, checkpoint, capsys):
    assert replay(bag, '--checkpoint', checkpoint, '--max-error', '100') == 0
    assert replay(bag, '--checkpoint', checkpoint, '--max-error', '1e-6') == 1
    assert 'open loop' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--latency', 'slow'], '--latency slow: give seconds'),
        (['--spike', '1'], '--spike 1: write SECONDS@TIME'),
        (['--missing', 'x'], '--missing x: write the time'),
        (['--degrade', 'explode'], '--degrade explode: write KIND'),
        (['--degrade', 'drop-camera:up'], "no camera 'up'; there are cam_high"),
        (['--replan-fraction', '1.5'], '--replan-fraction 1.5: must be 0 to 1'),
        (['--inference-deadline', '0'], '--inference-deadline 0: must be 0.05 to 600'),
        (['--temporal-ensemble', '-0.5'], '--temporal-ensemble -0.5: must be 0 to 10'),
        (['--threads', '0'], '--threads 0: must be 1 or more'),
        (['--max-error', '-1'], '--max-error -1: must not be below 0'),
        (['--max-error', '1', '--against', 'nothing'], '--max-error needs something'),
        (['--robot', 'r2d2'], "unknown robot 'r2d2'"),
        (['--robot', 'cobot_magic'], "is for robot 'cobot_magic', the policy for 'aloha_sim'"),
        (['--out', '/proc/report.html'], 'cannot write in'),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(bag, checkpoint, capsys, arguments, message):
    assert replay(bag, '--checkpoint', checkpoint, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('hbvla: error: ') and message in error and error.count('\n') == 1


def test_bags_that_cannot_be_replayed(bag, checkpoint, tmp_path, capsys):
    assert replay(tmp_path / 'none', '--checkpoint', checkpoint) == 2
    assert f'{tmp_path / "none"}: no such bag' in capsys.readouterr().err
    (tmp_path / 'noise.mcap').write_bytes(b'\0' * 100)
    assert replay(tmp_path / 'noise.mcap', '--checkpoint', checkpoint) == 2
    assert 'noise.mcap: not a readable bag' in capsys.readouterr().err
    assert replay(bag, '--checkpoint', tmp_path / 'none') == 2
    assert 'no such checkpoint folder' in capsys.readouterr().err


def test_a_bag_of_another_robot(checkpoint, tmp_path, capsys):
    write_fixture(tmp_path / 'other', RobotProfile.load('cobot_magic'), FixtureOptions(seconds=0.2))
    assert replay(tmp_path / 'other', '--checkpoint', checkpoint) == 2
    error = capsys.readouterr().err
    assert 'no topic /cam_high/image/compressed (camera cam_high of profile aloha_sim)' in error


def test_a_checkpoint_of_another_robot(bag, make_tiny_checkpoint, capsys):
    other = make_tiny_checkpoint('other', platform={'robot': 'nobody', 'cameras': CAMERAS})
    assert replay(bag, '--checkpoint', other) == 2
    assert "none is shipped for robot 'nobody'; give the path of one (--robot)" in (
        capsys.readouterr().err
    )
    assert replay(bag, '--checkpoint', other, '--robot', 'aloha_sim') == 2
    assert "is for robot 'aloha_sim', the policy for 'nobody'" in capsys.readouterr().err
