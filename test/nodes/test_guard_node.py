# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The guard against a stand-in for the arm node, whose heart stops when a test says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Empty, Float64MultiArray, Header, String
from std_srvs.srv import Empty as EmptyService
from std_srvs.srv import Trigger

from hbvla_ros.nodes.adapters import make_adapter
from hbvla_ros.nodes.guard_node import TABLE, GuardNode
from hbvla_ros.resources import share_path

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Arms(Node):
    """An arm node as far as a guard sees it: a heart, and commands on the wire."""

    def __init__(self, profile, **options):
        super().__init__('arm_node', **options)
        self.profile = profile
        self.state, self.beats, self.pose = 'active', True, profile.start_pose.copy()
        self.commands = self.has_heart = True
        self._heart = self.create_publisher(Header, '~/heartbeat', 1)
        self._outputs = [
            (make_adapter(arm), self.create_publisher(Float64MultiArray, arm.command_topic, 1))
            for arm in profile.arms
        ]
        self.create_timer(0.05, self._turn)

    def _turn(self):
        if not self.beats:
            return
        if self.has_heart:
            self._heart.publish(Header(frame_id=self.state))
        parts = self.profile.split(self.pose) if self.commands else ()
        for (adapter, publisher), part in zip(self._outputs, parts, strict=False):
            publisher.publish(adapter.build(part, 0.0))


@pytest.fixture
def arms(graph, profile):
    return graph.add(lambda **options: Arms(profile, **options))


@pytest.fixture
def guard(graph, robot):
    node = graph.add(GuardNode, diagnostics_rate=10.0)
    node.start()
    return node


@pytest.fixture
def stops(robot, guard, wait):
    """Everything the guard says on ``stop``, as a node that comes late hears it."""
    heard = []
    robot.create_subscription(String, 'stop', lambda m: heard.append(m.data), LATCHED)
    assert wait(lambda: heard)
    return heard


@pytest.fixture
def call(robot, wait):
    def call(service):
        client = robot.create_client(Trigger, f'guard_node/{service}')
        assert wait(client.service_is_ready)
        answer = client.call_async(Trigger.Request())
        assert wait(answer.done)
        return answer.result()

    return call


def is_watched(guard, arms, wait):
    return wait(lambda: guard._arms.is_heard and np.allclose(guard._wire.pose, arms.pose))


def falls_silent(robot, arms, wait, guard):
    """Let the arms' heart stop; commands before that no longer count."""
    assert is_watched(guard, arms, wait)
    arms.beats = False
    robot.live(0.1)
    for commands in robot.commands.values():
        commands.clear()


def test_it_says_nothing_to_the_arms_while_they_are_well(robot, guard, arms, stops, wait, profile):
    assert is_watched(guard, arms, wait)
    assert wait(lambda: robot.report('guard_node').message == 'watching')
    publishers = robot.count_publishers(profile.arms[0].command_topic)
    assert publishers == 2, 'its own is there before it is needed'
    arms.commands = False
    robot.live(0.2)
    before = len(robot.recorded())
    robot.live(0.5)
    assert len(robot.recorded()) == before
    assert set(stops) == {''} and robot.report('guard_node').level == b'\x00'


def test_silent_arms_are_held_where_they_were_told_to_be(robot, guard, arms, stops, wait, profile):
    robot.follow = False
    arms.pose[0] += 0.1
    falls_silent(robot, arms, wait, guard)
    assert wait(lambda: len(robot.recorded()) > 20)
    np.testing.assert_allclose(robot.recorded(), np.tile(arms.pose, (len(robot.recorded()), 1)))
    assert stops[-1].startswith('arm_node is silent for 0.')
    assert robot.reported('guard_node', ', holding the arms')


def test_arms_that_are_commanded_are_not_commanded_twice(robot, guard, arms, stops, wait):
    """A heart that is not heard while commands come is reason to stop, not to hold as well."""
    assert is_watched(guard, arms, wait)
    arms.has_heart = False
    assert wait(lambda: stops[-1].startswith('arm_node is silent for 0.'))
    robot.live(0.5)
    assert not guard.holds
    arms.beats = False
    assert wait(lambda: guard.holds)


def test_arms_that_are_elsewhere_are_held_where_they_are(robot, guard, arms, wait, profile):
    assert is_watched(guard, arms, wait)
    robot.follow = False
    robot.pose[0] += 0.5
    falls_silent(robot, arms, wait, guard)
    assert wait(lambda: len(robot.recorded()) and abs(robot.last()[0] - robot.pose[0]) < 1e-6)
    steps = np.abs(np.diff(robot.recorded()[:, 0], prepend=arms.pose[0]))
    assert (steps <= profile.velocity[0] * 2 / profile.control_rate + 1e-9).all()
    np.testing.assert_allclose(robot.last()[1:], profile.start_pose[1:], atol=1e-9)


def test_without_joint_states_the_last_command_is_held(robot, guard, arms, wait):
    arms.pose[3] += 0.2
    assert is_watched(guard, arms, wait)
    robot.joints_on = False
    robot.live(0.4)
    falls_silent(robot, arms, wait, guard)
    assert wait(lambda: len(robot.recorded()) > 5)
    np.testing.assert_allclose(robot.last(), arms.pose, atol=1e-9)


def test_an_arm_node_that_had_left_is_not_missed(robot, guard, arms, stops, wait):
    assert is_watched(guard, arms, wait)
    arms.state = 'inactive'
    assert wait(lambda: guard._arms.state == 'inactive')
    falls_silent(robot, arms, wait, guard)
    robot.live(0.8)
    assert set(stops) == {''} and len(robot.recorded()) == 0


def test_it_hands_the_arms_back_and_stays_stopped(robot, guard, arms, stops, call, wait):
    falls_silent(robot, arms, wait, guard)
    assert wait(lambda: guard.holds)
    answer = call('reset')
    assert not answer.success and 'arm_node is silent for' in answer.message
    # A new arm node is not active at once; until then the guard goes on.
    arms.state, arms.commands, arms.beats = 'inactive', False, True
    assert wait(lambda: guard._arms.state == 'inactive')
    before = len(robot.recorded())
    assert wait(lambda: len(robot.recorded()) > before + 5)
    arms.state = 'active stopped'
    assert wait(lambda: not guard.holds)
    robot.live(0.2)
    before = len(robot.recorded())
    robot.live(0.4)
    assert len(robot.recorded()) == before
    assert stops[-1] and robot.report('guard_node').message.startswith('stopped: arm_node is')
    assert call('reset').success
    assert wait(lambda: stops[-1] == '')


def test_stop_by_service_is_latched_until_reset(robot, guard, arms, stops, call, wait):
    assert is_watched(guard, arms, wait)
    assert call('stop').success
    assert wait(lambda: stops[-1] == 'stop requested on ~/stop')
    # The stand-in does not stop, which must not stay unsaid.
    assert wait(lambda: robot.reported('guard_node', 'does not say that it has stopped'))
    robot.live(0.5)
    assert stops[-1] and robot.report('guard_node').level == b'\x02' and not guard.holds
    assert call('reset').message == 'was stopped: stop requested on ~/stop'
    assert wait(lambda: stops[-1] == '')


def test_a_button_that_is_pressed_refuses_the_reset(robot, guard, stops, call, wait):
    button = robot.create_publisher(Empty, 'guard_node/stop_request', 5)
    assert wait(lambda: button.get_subscription_count() == 1)
    press = robot.create_timer(0.1, lambda: button.publish(Empty()))
    assert wait(lambda: stops[-1] == 'stop requested on ~/stop_request')
    answer = call('reset')
    assert not answer.success and 'that must end first' in answer.message
    robot.destroy_timer(press)
    assert wait(lambda: call('reset').success)


def test_a_foreign_writer_is_named_and_must_go(robot, guard, arms, stops, call, wait, profile):
    assert is_watched(guard, arms, wait)
    leader = robot.create_publisher(Float64MultiArray, profile.arms[1].command_topic, 1)
    expected = 'right/commands has another writer, /fake_robot'
    assert wait(lambda: stops[-1] == expected)
    assert not call('reset').success and stops[-1] == expected
    robot.destroy_publisher(leader)
    assert wait(lambda: call('reset').success)


def test_a_silent_policy_is_reported_and_stops_nothing(robot, guard, arms, stops, wait):
    assert is_watched(guard, arms, wait)
    heart = robot.create_publisher(Header, 'policy_node/heartbeat', 1)
    assert wait(lambda: heart.get_subscription_count() == 1)
    heart.publish(Header(frame_id='active'))
    assert wait(lambda: robot.reported('guard_node', 'policy_node is silent for'))
    assert set(stops) == {''}


@pytest.fixture
def with_services(tmp_path):
    """A profile whose drivers have stops of their own."""
    content = yaml.safe_load(share_path('config', 'robots', 'aloha_sim.yaml').read_text())
    content['stop_services'] = [
        {'name': 'left/emergency_stop', 'type': 'std_srvs/Empty'},
        {'name': 'right/stop', 'type': 'std_srvs/Trigger'},
        {'name': 'absent', 'type': 'std_srvs/Empty'},
    ]
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_drivers_own_stops_are_called(graph, robot, with_services, call, wait):
    called = []

    def serve(request, response):
        called.append(type(request))
        if hasattr(response, 'success'):
            response.success, response.message = False, 'no power'
        return response

    robot.create_service(EmptyService, 'left/emergency_stop', serve)
    robot.create_service(Trigger, 'right/stop', serve)
    guard = graph.add(GuardNode, diagnostics_rate=10.0, robot=with_services)
    clients = [client for client, _ in guard._driver_stops._clients.values()][:2]
    assert wait(lambda: all(client.service_is_ready() for client in clients))
    assert call('stop').success
    assert wait(lambda: len(called) == 2)
    assert wait(
        lambda: robot.report('guard_node', 'stop services') == 'right/stop failed: no power'
    )
    call('stop')
    robot.live(0.3)
    assert len(called) == 2, 'once for each stop'


def test_nothing_is_sent_while_nothing_is_known(graph, robot, profile, wait):
    robot.joints_on = False
    arms = graph.add(lambda **options: Arms(profile, **options))
    arms.commands = False
    guard = graph.add(GuardNode)
    assert wait(lambda: guard._arms.is_heard)
    arms.beats = False
    assert wait(lambda: guard.holds)
    robot.live(0.4)
    assert len(robot.recorded()) == 0


def test_parameters_are_described(graph):
    node = graph.add(GuardNode)
    for parameter in TABLE:
        assert node.describe_parameter(parameter.name).description.endswith('.')
    assert not node.set_parameters([Parameter('robot', value='other')])[0].successful


def test_trajectories_are_held_where_they_end(graph, profile, tmp_path, wait):
    """A controller runs to its last point by itself; the guard holds that, and sends points."""
    from trajectory_msgs.msg import JointTrajectory

    from hbvla_ros.nodes.adapters import JointTrajectoryCommand, Motion

    content = yaml.safe_load(share_path('config', 'robots', 'aloha_sim.yaml').read_text())
    for arm in content['arms']:
        arm['adapter'] = 'joint_trajectory'
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(content))
    guard = graph.add(GuardNode, robot=str(path))
    arm_node, listener = graph.add(Node, 'arm_node'), graph.add(Node, 'listener')
    heart = arm_node.create_publisher(Header, '~/heartbeat', 1)
    arms = [dataclasses.replace(a, adapter='joint_trajectory') for a in profile.arms]
    wires = [arm_node.create_publisher(JointTrajectory, arm.command_topic, 1) for arm in arms]
    heard = []
    listener.create_subscription(
        JointTrajectory, arms[0].command_topic, lambda m: heard.append(m), 20
    )
    assert wait(lambda: heart.get_subscription_count() and wires[0].get_subscription_count() == 2)
    assert wait(lambda: wires[1].get_subscription_count() == 1)
    heart.publish(Header(frame_id='active'))
    for arm, wire in zip(arms, wires, strict=True):
        poses = np.tile(np.array(arm.start_pose), (6, 1))
        poses[:, 0] = 0.02 * np.arange(6)
        wire.publish(JointTrajectoryCommand(arm).build_motion(Motion(1.0, 0.04, poses)))
    assert wait(lambda: len(heard) > 3)
    assert guard.holds
    for message in heard[1:]:
        (point,) = message.points
        assert point.positions[0] == pytest.approx(0.1) and list(point.velocities) == [0.0] * 7
