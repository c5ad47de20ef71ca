# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""replay.launch.py under real launch: the bag is played, the nodes answer, all leave with 0.

launch comes with a ROS 2 installation and not from PyPI, so elsewhere this file is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip(
    'launch_ros', reason='launch_ros is not installed; it comes with ROS 2, not from PyPI'
)

import ament_index_python  # noqa: E402

PROGRAM = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(a.split(':=', 1)) for a in sys.argv[2:]]
# On a machine with other work a node may need longer to leave than launch waits by itself.
patience = [SetLaunchConfiguration(f'{s}_timeout', '60') for s in ('sigterm', 'sigkill')]
source = PythonLaunchDescriptionSource(sys.argv[1])
include = IncludeLaunchDescription(source, launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([*patience, include]))
sys.exit(service.run())
"""


@pytest.fixture
def launch():
    """Run replay.launch.py with arguments; returns the finished process."""
    from hbvla_ros.evaluation.processes import free_domain, ros_environment

    try:
        share = ament_index_python.get_package_share_directory('hbvla_ros')
    except ament_index_python.PackageNotFoundError:
        pytest.skip('hbvla_ros is not in the ament index; build it with colcon and source it')

    def run(**arguments):
        file = os.path.join(share, 'launch', 'replay.launch.py')
        texts = [f'{name}:={value}' for name, value in arguments.items()]
        return subprocess.run(
            [sys.executable, '-c', PROGRAM, file, *texts],
            env=ros_environment(free_domain()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture
def bag(tmp_path):
    from hbvla_ros.control.profile import RobotProfile
    from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture

    write_fixture(tmp_path / 'bag', RobotProfile.load('aloha_sim'), FixtureOptions(seconds=2.0))
    return tmp_path / 'bag'


@pytest.fixture
def checkpoint(make_tiny_checkpoint):
    cameras = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
    return make_tiny_checkpoint(platform={'robot': 'aloha_sim', 'cameras': cameras, 'chunk': 10})


def test_a_bag_is_played_and_everybody_leaves(launch, bag, checkpoint):
    outcome = launch(
        bag=bag,
        checkpoint=checkpoint,
        robot='aloha_sim',
        rate='0.5',
        namespace='again',
    )
    assert outcome.returncode == 0, outcome.stdout
    assert '351 messages played' in outcome.stdout, outcome.stdout
    assert re.search(r"instruction: 'put the red cube into the bucket'", outcome.stdout)
    assert 'waiting for ~/start' not in outcome.stdout
    for node in ('replay_node', 'policy_node', 'arm_node', 'guard_node'):
        assert re.search(rf'{node}-\d+\]: process has finished cleanly', outcome.stdout), node


def test_an_argument_wins_over_the_parameter_file(launch, bag, checkpoint, tmp_path):
    file = tmp_path / 'params.yaml'
    file.write_text('/**/policy_node:\n  ros__parameters:\n    wait_for_start: false\n')
    outcome = launch(
        bag=bag, checkpoint=checkpoint, robot='aloha_sim', wait_for_start='true', params_file=file
    )
    assert outcome.returncode == 0, outcome.stdout
    assert 'waiting for ~/start' in outcome.stdout, outcome.stdout


def test_a_bag_that_is_not_there_ends_the_launch(launch, checkpoint):
    outcome = launch(bag='/none', checkpoint=checkpoint, robot='aloha_sim')
    assert '/none: not a readable bag' in outcome.stdout
    assert 'exit code 2' in outcome.stdout
