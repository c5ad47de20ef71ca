# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""sim.launch.py under real launch: five processes come up, move the arms and leave with 0.

launch comes with a ROS 2 installation and not from PyPI, so elsewhere this file is skipped. pytest
runs the one test below; launch_testing then loads this same file for the two classes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import unittest

import pytest

launch_testing = pytest.importorskip(
    'launch_testing', reason='launch_testing is not installed; it comes with ROS 2, not from PyPI'
)

import ament_index_python  # noqa: E402
import rclpy  # noqa: E402
from launch import LaunchDescription  # noqa: E402
from launch.actions import (  # noqa: E402
    IncludeLaunchDescription,
    SetLaunchConfiguration,
    TimerAction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_testing.actions import ReadyToTest  # noqa: E402
from rclpy.node import Node  # noqa: E402
from std_msgs.msg import Float64MultiArray, String  # noqa: E402

CHECKPOINT = 'HBVLA_TEST_CHECKPOINT'
NAMESPACE = 'bringup'
CAMERAS = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')


def test_sim_launch(make_tiny_checkpoint):
    from hbvla_ros.evaluation.processes import free_domain, ros_environment

    try:
        ament_index_python.get_package_prefix('hbvla_ros')
    except ament_index_python.PackageNotFoundError:
        pytest.skip('hbvla_ros is not in the ament index; build it with colcon and source it')
    checkpoint = make_tiny_checkpoint(platform={'robot': 'aloha_sim', 'cameras': CAMERAS})
    environment = dict(ros_environment(free_domain()), **{CHECKPOINT: str(checkpoint)})
    command = [sys.executable, '-m', 'launch_testing.launch_test', __file__]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def generate_test_description():
    share = ament_index_python.get_package_share_directory('hbvla_ros')
    arguments = {
        'checkpoint': os.environ[CHECKPOINT],
        'namespace': NAMESPACE,
        'seed': '3',
        'enclave': '/hbvla',
    }
    source = PythonLaunchDescriptionSource(os.path.join(share, 'launch', 'sim.launch.py'))
    bringup = IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))
    # On a machine with other work a node may need longer to leave than launch waits by itself.
    patience = [
        SetLaunchConfiguration(f'{signal}_timeout', '60') for signal in ('sigterm', 'sigkill')
    ]
    ready = TimerAction(period=1.0, actions=[ReadyToTest()])
    return LaunchDescription([*patience, bringup, ready])


class TestBringUp(unittest.TestCase):
    __test__ = False  # for launch_testing, not for pytest

    def test_the_arms_are_moved_by_the_policy(self):
        context = rclpy.context.Context()
        rclpy.init(context=context)
        node = Node('bringup_test', context=context, namespace=NAMESPACE)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        commands, instructions = [], []
        node.create_subscription(
            Float64MultiArray, 'left/commands', lambda m: commands.append(list(m.data)), 10
        )
        latched = rclpy.qos.QoSProfile(
            depth=1, durability=rclpy.qos.DurabilityPolicy.TRANSIENT_LOCAL
        )
        node.create_subscription(
            String, 'instruction', lambda m: instructions.append(m.data), latched
        )
        end = time.monotonic() + 300.0

        def moved():
            return len(commands) > 1 and abs(commands[-1][0] - commands[0][0]) > 0.05

        def instructed():
            return bool(instructions) and instructions[-1].startswith('put the ')

        while time.monotonic() < end and not (moved() and instructed()):
            executor.spin_once(timeout_sec=0.1)
        enclaves = {
            name: enclave
            for name, _, enclave in node.get_node_names_and_namespaces_with_enclaves()
            if name != 'bringup_test'
        }
        node.destroy_node()
        rclpy.shutdown(context=context)
        self.assertTrue(moved(), f'{len(commands)} commands')
        self.assertTrue(instructed(), instructions)
        names = ('guard_node', 'arm_node', 'policy_node', 'bringup_node')
        expected = {name: f'/hbvla/{name}' for name in names} | {'sim_robot_node': '/hbvla/sim'}
        self.assertEqual(enclaves, expected)


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    __test__ = False

    def test_every_process_leaves_with_0(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
        self.assertEqual(len(proc_info.process_names()), 5)
