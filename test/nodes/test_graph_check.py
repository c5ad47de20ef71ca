# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla doctor --robot`` against real publishers and subscriptions."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.cli import doctor, main
from hbvla_ros.control.profile import RobotProfile, StopService
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import graph_check, graph_view
from hbvla_ros.nodes.adapters import command_topics, make_adapter
from hbvla_ros.nodes.conversions import encode_jpeg, joint_state
from hbvla_ros.nodes.graph_arrivals import Arrivals
from hbvla_ros.nodes.graph_expectations import Expectation, expectations
from hbvla_ros.resources import share_path

LEFT, RIGHT = RobotProfile.load('aloha_sim').arms
CAMERAS = RobotProfile.load('aloha_sim').cameras
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
IMAGE = np.zeros((8, 8, 3), np.uint8)


class Drivers(Node):
    """Two arms and three cameras; what is wrong with them is told by name.

    Args:
        slow: Hz of the first camera.
        faulty: whether types, joint names and quality of service are wrong here and there.
    """

    def __init__(self, slow=50.0, faulty=False, **options):
        super().__init__('drivers', **options)
        self.now = lambda: self.get_clock().now().nanoseconds * 1e-9
        for arm in (LEFT, RIGHT):
            names = arm.names[1:] if faulty and arm is RIGHT else arm.names
            publisher = self.create_publisher(JointState, arm.state_topic, 5)
            self.create_timer(0.01, partial(self._publish_joints, publisher, names))
            quality = LATCHED if faulty and arm is LEFT else 1
            self.create_subscription(Float64MultiArray, arm.command_topic, print, quality)
        for index, camera in enumerate(CAMERAS):
            if faulty and index == 1:
                self.create_publisher(Image, camera.topic, 1)
                continue
            if faulty and index == 2:
                continue
            publisher = self.create_publisher(CompressedImage, camera.topic, BEST_EFFORT)
            period = 1.0 / (50.0 if index else slow)
            self.create_timer(period, partial(self._publish_image, publisher, camera.name))

    def _publish_joints(self, publisher, names):
        publisher.publish(joint_state(names, np.zeros(len(names)), self.now()))

    def _publish_image(self, publisher, name):
        publisher.publish(encode_jpeg(IMAGE, self.now(), name, 50))


class Writer(Node):
    """Publishes on an arm's commands, as a teleoperation would."""

    def __init__(self, name, arm=LEFT, **options):
        super().__init__(name, **options)
        self.create_publisher(Float64MultiArray, arm.command_topic, 1)


class Talker(Node):
    """Gives instructions and chunks in ways that our nodes do not hear."""

    def __init__(self, **options):
        super().__init__('talker', **options)
        self.create_publisher(String, 'instruction', 5)
        self.create_publisher(JointTrajectory, 'action_chunks', BEST_EFFORT)
        self.create_publisher(CompressedImage, 'elsewhere/image/compressed', 1)


@pytest.fixture
def examine(graph, monkeypatch, capsys):
    """Exit status and findings by name of ``hbvla doctor --robot`` in the graph's domain."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(graph.domain))
    monkeypatch.setattr(doctor, '_CHECKS', ())  # test_doctor has those.

    def run(*arguments, seconds=2.0):
        command = ['doctor', '--robot', 'aloha_sim', '--seconds', str(seconds), '--json']
        status = main.main([*command, *arguments])
        found: dict[str, list] = {}
        for row in json.loads(capsys.readouterr().out)['rows']:
            found.setdefault(row['name'], []).append(row)
        return status, found

    return run


def test_a_robot_in_order_has_no_fault(graph, examine):
    graph.add(partial(Drivers, namespace='/robot1'))
    graph.add(partial(Writer, 'arm_node', namespace='/robot1'))
    graph.add(partial(Writer, 'guard_node', namespace='/robot1'))
    # Another robot, whose commands are its own.
    graph.add(Writer, 'arm_node')
    status, found = examine('--namespace', '/robot1')
    rows = [row for rows in found.values() for row in rows]
    assert status == 0, [row for row in rows if row['state'] != 'ok']
    assert len(rows) == 1 + 4 + 3 + 2, 'the graph, two topics an arm, three cameras, two writers'
    (camera,) = found[f'topic /robot1/{CAMERAS[0].topic}']
    # A busy machine may deliver in jerks; that is a warning.
    assert ' Hz of 25 Hz' in camera['found'] and 'camera cam_high: ' in camera['found']
    (commands,) = found['topic /robot1/left/commands']
    assert commands['found'].endswith('std_msgs/msg/Float64MultiArray to /robot1/drivers')
    (writers,) = found['writers /robot1/left/commands']
    assert writers['found'].endswith(': /robot1/arm_node, /robot1/guard_node')
    assert 'no writer yet' in found['writers /robot1/right/commands'][0]['found']


def test_everything_that_is_wrong_is_named_with_its_node(graph, examine):
    graph.add(partial(Drivers, 2.0, True))
    graph.add(Writer, 'arm_node')
    graph.add(Writer, 'teleop')
    graph.add(Talker)
    for _ in range(2):
        graph.add(Writer, 'guard_node', RIGHT)
    status, found = examine(seconds=3.0)
    assert status == 1

    def fault(name):
        (row,) = [row for row in found[name] if row['state'] == 'fault']
        assert row['fix'] != 'none'
        return row['found']

    wrong_type = fault(f'topic /{CAMERAS[1].topic}')
    assert '/drivers publishes sensor_msgs/msg/Image, wrong type, expected' in wrong_type
    assert wrong_type.endswith('sensor_msgs/msg/CompressedImage')
    missing = fault(f'topic /{CAMERAS[2].topic}')
    assert 'missing, nobody publishes' in missing and '/elsewhere/image/compressed' in missing
    durability = fault('topic /left/commands')
    assert '/drivers listens for it with incompatible durability' in durability
    assert 'incompatible durability' in fault('topic /instruction')
    reliability = fault('topic /action_chunks')
    assert '/talker publishes it with incompatible reliability' in reliability
    slow = fault(f'topic /{CAMERAS[0].topic}')
    assert 'camera cam_high: ' in slow and ' Hz of 25 Hz delivered' in slow
    assert 0.5 < float(slow.split(': ')[1].split(' Hz')[0]) < 3.0
    assert "joint 'right_waist' is missing" in fault('topic /right/joint_states')
    writers = fault('writers /left/commands')
    assert writers.endswith('2 writers, /arm_node, /teleop')
    (row,) = found['writers /left/commands']
    assert row['fix'].startswith('stop /teleop, or remap')
    # Nor may one of ours run twice.
    assert fault('writers /right/commands').endswith('2 writers, /guard_node, /guard_node')


def test_an_empty_graph_says_what_to_look_at(graph, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(graph.domain))
    monkeypatch.setattr(graph_view, '_DISCOVERY', 0.2)
    rows = graph_check.check(RobotProfile.load('aloha_sim'), '', 0.1)
    assert rows[0]['state'] == 'fault' and 'ROS_DOMAIN_ID' in rows[0]['fix']
    assert rows[0]['found'] == f'0 nodes in domain {graph.domain}'


ROBOTS = sorted(path.stem for path in share_path('config', 'robots').glob('*.yaml'))


@pytest.mark.parametrize('robot', ROBOTS)
def test_expected_types_are_those_of_the_adapters(robot):
    profile = RobotProfile.load(robot)
    found = {each.topic: each for each in expectations(profile)}
    commands = {topic for topic, each in found.items() if each.commanded}
    assert commands == set(command_topics(profile))
    assert {camera.topic for camera in profile.cameras} <= set(found)
    for arm in profile.arms:
        expected = found[arm.command_topic].type
        try:
            kind = make_adapter(arm).message_type
        except HbvlaError as error:
            # Not installed here: then it says the same, and the doctor finds it by that name.
            assert expected.partition('/')[0] in str(error)
            continue
        assert expected == f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'


def test_messages_that_are_not_installed_are_a_fault():
    kinds = ['sensor_msgs/msg/JointState', 'nobody_msgs/msg/Command', 'std_msgs/msg/Nothing']
    expected = [Expectation('', kind, kind, QoSProfile(depth=1)) for kind in kinds]
    rows = list(graph_check._absent_messages(SimpleNamespace(expected=expected)))
    assert [row['name'] for row in rows] == ['messages nobody_msgs', 'messages std_msgs']
    assert 'ros-$ROS_DISTRO-nobody-msgs' in rows[0]['fix'] and rows[0]['state'] == 'fault'


def test_the_stops_of_drivers_are_looked_for():
    stops = [StopService('/a', 'std_srvs/Trigger'), StopService('/b', 'std_srvs/Empty')]
    stops.append(StopService('/c', 'std_srvs/Empty'))
    served = {'/a': ['std_srvs/srv/Trigger'], '/b': ['std_srvs/srv/Trigger']}
    view = SimpleNamespace(full=str, services=lambda: served, stop_services=stops)
    rows = list(graph_check._stop_services(view))
    assert [row['state'] for row in rows] == ['ok', 'fault', 'fault']
    assert 'wrong type, expected std_srvs/srv/Empty' in rows[1]['found']
    assert rows[2]['name'] == 'service /c' and 'nobody serves it' in rows[2]['found']


def test_rates_count_from_the_first_message_and_mind_the_silence_at_the_end():
    times = iter([10.0, 10.1, 10.2, 10.3, 11.3])
    arrivals = Arrivals(lambda: next(times))
    assert arrivals.rate == 0.0 and arrivals.longest_gap == float('inf')
    for _ in range(4):
        arrivals.add()
    assert arrivals.rate == pytest.approx(10.0)
    arrivals.end()
    assert arrivals.rate == pytest.approx(3 / 1.3)
    assert arrivals.longest_gap == pytest.approx(1.0)
