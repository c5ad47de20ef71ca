# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""quantize.launch.py under real launch: arguments reach the node, a folder comes out, status 0.

launch comes with a ROS 2 installation and not from PyPI, so elsewhere this file is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip(
    'launch_ros', reason='launch_ros is not installed; it comes with ROS 2, not from PyPI'
)

import ament_index_python  # noqa: E402


@pytest.fixture
def launch(tmp_path):
    """Run quantize.launch.py with arguments; returns the finished process."""
    from hbvla_ros.evaluation.processes import free_domain, ros_environment

    try:
        share = ament_index_python.get_package_share_directory('hbvla_ros')
    except ament_index_python.PackageNotFoundError:
        pytest.skip('hbvla_ros is not in the ament index; build it with colcon and source it')
    program = (
        'import sys\n'
        'from launch import LaunchDescription, LaunchService\n'
        'from launch.actions import IncludeLaunchDescription\n'
        'from launch.launch_description_sources import PythonLaunchDescriptionSource\n'
        'arguments = [tuple(a.split(":=", 1)) for a in sys.argv[2:]]\n'
        'source = PythonLaunchDescriptionSource(sys.argv[1])\n'
        'include = IncludeLaunchDescription(source, launch_arguments=arguments)\n'
        'service = LaunchService()\n'
        'service.include_launch_description(LaunchDescription([include]))\n'
        'sys.exit(service.run())\n'
    )

    def run(**arguments):
        file = os.path.join(share, 'launch', 'quantize.launch.py')
        texts = [f'{name}:={value}' for name, value in arguments.items()]
        return subprocess.run(
            [sys.executable, '-c', program, file, *texts],
            env=ros_environment(free_domain()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    return run


def test_a_folder_comes_out(launch, tiny_checkpoint, tmp_path):
    from hbvla_ros.packed.reader import PackedFolder

    out = tmp_path / 'deployed'
    outcome = launch(checkpoint=tiny_checkpoint, out=out, method='rtn', bits='2.0', seed='7')
    assert out.is_dir(), outcome.stdout
    manifest = PackedFolder.open(out).manifest
    assert (manifest.method, manifest.seed) == ('rtn', 7)
    assert manifest.nominal_bits_per_weight == 2
    assert 'process has finished cleanly' in outcome.stdout


def test_the_parameter_file_counts_where_no_argument_is_given(launch, tiny_checkpoint, tmp_path):
    from hbvla_ros.packed.reader import PackedFolder

    out, file = tmp_path / 'deployed', tmp_path / 'params.yaml'
    file.write_text('/**/quantize_node:\n  ros__parameters:\n    method: rtn\n    seed: 3\n')
    outcome = launch(checkpoint=tiny_checkpoint, out=out, params_file=file, seed='4')
    assert out.is_dir(), outcome.stdout
    manifest = PackedFolder.open(out).manifest
    assert (manifest.method, manifest.seed) == ('rtn', 4)


def test_a_failure_is_the_status_of_the_process(launch, tiny_checkpoint, tmp_path):
    outcome = launch(checkpoint=tiny_checkpoint, out=tmp_path / 'out', method='magic')
    assert "method 'magic' is unknown" in outcome.stdout
    assert 'process has died' in outcome.stdout and 'exit code 2' in outcome.stdout
