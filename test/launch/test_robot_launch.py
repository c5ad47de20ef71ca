# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""robot.launch.py with its own defaults: nothing moves before somebody says so.

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
from launch_ros.actions import Node as LaunchNode  # noqa: E402
from launch_testing.actions import ReadyToTest  # noqa: E402
from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from rcl_interfaces.srv import GetParameters  # noqa: E402
from rclpy.node import Node  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

CHECKPOINT = 'HBVLA_TEST_CHECKPOINT'
NAMESPACE = 'robot'
CAMERAS = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
CAUTIOUS = ('hold_on_loss', 'wait_for_start')
# How long the arms are watched doing nothing, and how far one joint goes once they may, rad.
WATCHED, MOVED = 3.0, 0.05


def test_robot_launch(make_tiny_checkpoint):
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
    simulator = LaunchNode(
        package='hbvla_ros',
        executable='sim_robot_node',
        name='sim_robot_node',
        namespace=NAMESPACE,
        parameters=[{'robot': 'aloha_sim', 'seed': 3}],
    )
    arguments = {
        'checkpoint': os.environ[CHECKPOINT],
        'robot': 'aloha_sim',
        'namespace': NAMESPACE,
        'use_sim_time': 'true',
    }
    source = PythonLaunchDescriptionSource(os.path.join(share, 'launch', 'robot.launch.py'))
    robot = IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))
    # On a machine with other work a node may need longer to leave than launch waits by itself.
    patience = [
        SetLaunchConfiguration(f'{signal}_timeout', '60') for signal in ('sigterm', 'sigkill')
    ]
    ready = TimerAction(period=1.0, actions=[ReadyToTest()])
    return LaunchDescription([*patience, simulator, robot, ready])


class Watch:
    """A node of the test that calls services and hears chunks and the left arm's commands."""

    def __init__(self):
        self.context = rclpy.context.Context()
        rclpy.init(context=self.context)
        self.node = Node('robot_test', context=self.context, namespace=NAMESPACE)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.chunks, self.commands = [], []
        self.node.create_subscription(JointTrajectory, 'action_chunks', self._chunk, 10)
        self.node.create_subscription(Float64MultiArray, 'left/commands', self._command, 10)

    def _chunk(self, message):
        if message.points:
            self.chunks.append(message)

    def _command(self, message):
        self.commands.append(list(message.data))

    def travel(self):
        """How far the commands of any joint have gone since the first of them, rad."""
        starts = self.commands[:1]
        return max(
            (abs(a - b) for c in self.commands for a, b in zip(c, *starts, strict=True)),
            default=0.0,
        )

    def until(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.1)
        return condition()

    def call(self, kind, name, request, seconds=120.0):
        client = self.node.create_client(kind, name)
        assert self.until(client.service_is_ready, seconds), f'no service {name}'
        future = client.call_async(request)
        assert self.until(future.done, seconds), f'{name} did not answer'
        return future.result()

    def close(self):
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class TestDefaults(unittest.TestCase):
    __test__ = False  # for launch_testing, not for pytest

    def setUp(self):
        self.watch = Watch()

    def tearDown(self):
        self.watch.close()

    def test_nothing_moves_before_start(self):
        watch = self.watch

        def active():
            state = watch.call(GetState, 'policy_node/get_state', GetState.Request())
            return state.current_state.id == State.PRIMARY_STATE_ACTIVE

        self.assertTrue(watch.until(active, 240.0))
        asked = GetParameters.Request(names=list(CAUTIOUS))
        values = watch.call(GetParameters, 'policy_node/get_parameters', asked).values
        self.assertEqual([value.bool_value for value in values], [True, True])
        watch.until(lambda: False, WATCHED)
        self.assertEqual(watch.chunks, [])
        self.assertLess(watch.travel(), 1e-3)
        answer = watch.call(Trigger, 'policy_node/start', Trigger.Request())
        self.assertTrue(answer.success, answer.message)
        self.assertTrue(watch.until(lambda: watch.travel() > MOVED, 120.0), len(watch.chunks))
        self.assertTrue(watch.chunks)


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    __test__ = False

    def test_every_process_leaves_with_0(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
        self.assertEqual(len(proc_info.process_names()), 5)
