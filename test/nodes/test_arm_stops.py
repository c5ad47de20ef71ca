# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What stops the arm node for good, what only makes it hold, and how it goes on afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Float64MultiArray, Header, String
from std_srvs.srv import Trigger

from hbvla_ros.nodes.arm_node import ArmNode

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Heart(Node):
    """Another node as far as the arm node sees it: its heart, and a guard's word to stop."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.state, self.beats = 'active', True
        self._publisher = self.create_publisher(Header, '~/heartbeat', 1)
        self._stops = self.create_publisher(String, 'stop', LATCHED)
        self.create_timer(0.05, self._beat)

    def _beat(self):
        if self.beats:
            self._publisher.publish(Header(frame_id=self.state))

    def say(self, reason):
        self._stops.publish(String(data=reason))


@pytest.fixture
def arms(graph, robot, wait):
    """An active arm node in simulated time that hears its robot and holds."""
    robot.simulate()
    node = graph.add(ArmNode, diagnostics_rate=10.0, use_sim_time=True)
    node.start()
    assert wait(lambda: robot.last() is not None)
    return node


@pytest.fixture
def heart(graph):
    return lambda name: graph.add(lambda **options: Heart(name, **options))


@pytest.fixture
def reset(robot, wait):
    def reset():
        client = robot.create_client(Trigger, 'arm_node/reset')
        assert wait(client.service_is_ready)
        answer = client.call_async(Trigger.Request())
        assert wait(answer.done)
        return answer.result()

    return reset


def ramp(profile, rise, rows=100):
    actions = np.tile(profile.start_pose, (rows, 1))
    actions[:, 0] += np.linspace(0.0, rise, rows)
    return actions


def run(robot, profile, wait):
    """Send a long chunk and wait until the arms are under way."""
    robot.send(ramp(profile, 2.0))
    before = robot.last()[0]
    assert wait(lambda: robot.last()[0] > before + 0.1)


def rests(robot, since=0.4):
    robot.live(since)
    before = robot.last()
    robot.live(0.3)
    return np.array_equal(before, robot.last())


def report(robot, key):
    return robot.report('arm_node', key)


def test_a_stop_of_the_guard_is_latched(robot, arms, heart, reset, profile, wait):
    guard = heart('guard_node')
    run(robot, profile, wait)
    guard.say('button')
    assert wait(lambda: arms._stop_reason == 'guard_node: button')
    assert rests(robot)
    assert wait(lambda: robot.reported('arm_node', 'stopped: guard_node: button'))
    assert report(robot, 'mode') == 'stopped' and robot.report('arm_node').level == b'\x02'
    robot.send(ramp(profile, 2.0))
    assert wait(lambda: report(robot, 'last refusal') == 'while stopped: guard_node: button')
    answer = reset()
    assert not answer.success and 'guard_node is stopped (button); reset it first' in answer.message
    guard.say('')
    assert wait(lambda: arms._guard_stop == '')
    robot.live(0.3)
    assert arms._stop_reason, 'new data take back no stop'
    assert reset().success
    run(robot, profile, wait)


@pytest.mark.parametrize('state', ['unconfigured', 'inactive'])
def test_a_stop_passes_whatever_the_state_is(graph, robot, heart, profile, wait, state):
    robot.simulate()
    guard = heart('guard_node')
    arms = graph.add(ArmNode, diagnostics_rate=10.0, use_sim_time=True)
    if state == 'inactive':
        arms.trigger_configure()
    guard.say('button')
    assert wait(lambda: arms._stop_reason)
    assert arms.state_label == state
    arms.start()
    assert wait(lambda: len(robot.recorded()) > 5), 'stopped arms are held'
    robot.send(ramp(profile, 2.0))
    assert wait(lambda: 'while stopped' in report(robot, 'last refusal'))
    np.testing.assert_allclose(robot.last(), profile.start_pose)


def test_a_guard_that_falls_silent_holds_the_arms(robot, arms, heart, profile, wait):
    guard = heart('guard_node')
    assert wait(lambda: arms._watch.guard.is_heard)
    run(robot, profile, wait)
    guard.beats = False
    assert wait(lambda: robot.reported('arm_node', 'holding: guard_node is silent for'))
    assert rests(robot)
    robot.send(ramp(profile, 2.0))
    assert wait(lambda: 'while holding: guard_node' in report(robot, 'last refusal'))
    guard.beats = True
    assert wait(lambda: not arms._hindrance)
    run(robot, profile, wait)


def test_without_a_required_guard_nothing_runs(graph, robot, heart, profile, wait):
    robot.simulate()
    node = graph.add(ArmNode, diagnostics_rate=10.0, use_sim_time=True, require_guard=True)
    node.start()
    assert wait(lambda: robot.reported('arm_node', 'holding: no guard_node is heard'))
    robot.send(ramp(profile, 2.0))
    assert wait(lambda: 'no guard_node is heard' in report(robot, 'last refusal'))
    np.testing.assert_allclose(robot.last(), profile.start_pose)
    heart('guard_node')
    assert wait(lambda: not node._hindrance)
    run(robot, profile, wait)


def test_a_policy_that_falls_silent_holds_the_arms(robot, arms, heart, profile, wait):
    policy = heart('policy_node')
    assert wait(lambda: arms._watch.policy.is_heard)
    run(robot, profile, wait)
    policy.beats = False
    assert wait(lambda: robot.reported('arm_node', 'holding: policy_node is silent for'))
    assert rests(robot)
    assert robot.last()[0] < 1.9, 'the chunk was not run to its end'
    policy.beats = True
    assert wait(lambda: not arms._hindrance)
    run(robot, profile, wait)


def test_a_policy_that_has_left_is_forgotten_by_a_reset(robot, arms, heart, reset, profile, wait):
    policy = heart('policy_node')
    assert wait(lambda: arms._watch.policy.is_heard)
    policy.beats = False
    assert wait(lambda: arms._hindrance)
    assert reset().success
    assert wait(lambda: not arms._hindrance)
    run(robot, profile, wait)


def test_a_policy_that_was_not_active_may_leave(robot, arms, heart, wait):
    policy = heart('policy_node')
    policy.state = 'inactive'
    assert wait(lambda: arms._watch.policy.state == 'inactive')
    policy.beats = False
    assert wait(lambda: arms._watch.policy.is_silent)
    robot.live(0.3)
    assert arms._hindrance == ''


def test_another_writer_stops_the_arms_and_gets_the_wire(robot, arms, reset, profile, wait):
    run(robot, profile, wait)
    leader = robot.create_publisher(Float64MultiArray, 'right/commands', 1)
    expected = 'stopped: right/commands has another writer, /fake_robot'
    assert wait(lambda: robot.reported('arm_node', expected))
    assert wait(lambda: arms._gives_way)
    robot.live(0.2)
    count = len(robot.recorded())
    robot.live(0.4)
    assert len(robot.recorded()) == count, 'it does not argue with the other'
    assert not reset().success
    # The other one moves an arm and leaves: that arm must not be pulled back in one step.
    robot.pose[7] += 0.6
    robot.destroy_publisher(leader)
    assert wait(lambda: len(robot.recorded()) > count + 5)
    np.testing.assert_allclose(robot.recorded()[count + 1 :, 7], robot.pose[7], atol=1e-6)
    assert arms._stop_reason and reset().success
    run(robot, profile, wait)


def test_another_writer_from_the_start_means_no_command_at_all(graph, robot, wait):
    robot.create_publisher(Float64MultiArray, 'left/commands', 1)
    node = graph.add(ArmNode, diagnostics_rate=10.0)
    node.trigger_configure()
    assert wait(lambda: node.count_publishers('left/commands') == 2)
    node.trigger_activate()
    assert wait(lambda: robot.reported('arm_node', 'another writer'))
    robot.live(0.3)
    assert robot.last() is None and node.is_active


def test_a_second_arm_node_stops_both(graph, robot, arms, reset, wait):
    second = graph.process('arm_node', use_sim_time=True, autostart=True)
    second.says('stopped: a second arm_node is running')
    assert wait(lambda: arms._stop_reason == 'a second arm_node is running')
    assert 'a second arm_node' in reset().message
    second.process.terminate()
    second.wait()
    assert wait(lambda: reset().success)


def test_its_heart_says_how_it_is(graph, robot, heart, wait):
    guard, states = heart('guard_node'), []

    def receive(message):
        if message.frame_id not in states[-1:]:
            states.append(message.frame_id)

    robot.create_subscription(Header, 'arm_node/heartbeat', receive, 10)
    arms = graph.add(ArmNode)
    assert wait(lambda: states == ['unconfigured'])
    arms.trigger_configure()
    assert wait(lambda: states[-1] == 'inactive')
    arms.trigger_activate()
    assert wait(lambda: states[-1] == 'active')
    guard.say('button')
    assert wait(lambda: states[-1] == 'active stopped')
    arms.stop()
    assert wait(lambda: 'inactive stopped' in states), 'said at once, not at the next beat'


@pytest.mark.parametrize('is_guarded', [True, False])
def test_after_a_standstill_it_lets_a_guard_be_heard_first(
    robot, arms, heart, profile, wait, is_guarded
):
    if is_guarded:
        heart('guard_node')
        assert wait(lambda: arms._watch.guard.is_heard)
    robot.follow = False
    run(robot, profile, wait)
    # As a process finds it that did not run for a second; the guard may hold the arms by now.
    arms._heart._last -= 1.0
    if is_guarded:
        # From where they are, not from where they were to be; and it is no stop.
        assert wait(lambda: robot.last()[0] == pytest.approx(0.0, abs=1e-9))
        assert arms._motion.stop == '' and not arms._motion.is_running
    else:
        assert wait(lambda: robot.last()[0] > 0.2)
