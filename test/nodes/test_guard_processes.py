# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Guard and arm node as processes: each of them killed, asked to leave, and brought back."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

# From the death of a process to the hold, s.
BOUND = 0.5


class Recorder(Node):
    """Commands of the left arm with the time at which they were sent, by the sender's own stamp."""

    def __init__(self, **options):
        super().__init__('recorder', **options)
        self.sent, self.turns = [], []
        self.create_subscription(Float64MultiArray, 'left/commands', self._receive, 100)
        self.create_timer(0.01, lambda: self.turns.append(time.time()))

    def _receive(self, message, info):
        self.sent.append((info['source_timestamp'] * 1e-9, np.array(message.data)))

    def after(self, moment):
        return [one for one in list(self.sent) if one[0] > moment]

    def stood_still(self, begin, end):
        """Seconds in between in which this machine let nobody get on."""
        turns = np.array([begin, *[t for t in list(self.turns) if begin < t < end], end])
        return float(np.maximum(np.diff(turns) - 0.03, 0.0).sum())


@pytest.fixture
def recorder(graph):
    return graph.add(Recorder)


@pytest.fixture
def call(robot, wait):
    def call(service):
        client = robot.create_client(Trigger, service)
        assert wait(client.service_is_ready)
        answer = client.call_async(Trigger.Request())
        assert wait(answer.done)
        return answer.result()

    return call


@pytest.fixture
def guarded(graph, robot, recorder, wait):
    """Guard and arm node as processes, the arms holding."""
    guard = graph.process('guard_node', diagnostics_rate=10.0)
    guard.says('watching over aloha_sim')
    arms = start_arms(graph)
    assert wait(lambda: robot.last() is not None)
    assert wait(lambda: robot.report('guard_node').message == 'watching')
    return guard, arms


def start_arms(graph):
    process = graph.process('arm_node', autostart=True, require_guard=True, diagnostics_rate=10.0)
    process.says('activate done')
    return process


def set_in_motion(robot, profile, wait):
    """Send long chunks until the waist is on its way."""
    start = robot.last()

    def is_moving():
        recorded = robot.recorded()
        return len(recorded) > 1 and recorded[-1][0] - recorded[-2][0] > 0.01

    for _ in range(20):
        actions = np.tile(start, (100, 1))
        actions[:, 0] += np.linspace(0.0, 2.0, 100)
        robot.send(actions)
        if wait(is_moving, 2.0):
            return
    raise AssertionError('the arms do not move')


def assert_in_time(recorder, killed, moment):
    assert moment - killed - recorder.stood_still(killed, moment) < BOUND


def test_arms_whose_node_is_killed_are_held_by_the_guard(
    graph, robot, recorder, guarded, profile, call, wait
):
    guard, arms = guarded
    set_in_motion(robot, profile, wait)
    killed = time.time()
    arms.process.send_signal(signal.SIGKILL)
    arms.wait()
    told = [values for sent, values in recorder.sent if sent <= time.time()][-1]
    guard.says('holding the arms in the place of arm_node')
    assert wait(lambda: len(recorder.after(killed + 0.2)) > 10)
    held = recorder.after(killed + 0.2)
    assert_in_time(recorder, killed, held[0][0])
    np.testing.assert_allclose([values for _, values in held], np.tile(told, (len(held), 1)))
    assert robot.reported('guard_node', 'stopped: arm_node is silent for')
    # A new arm node is stopped from the start, and holds by itself once it is active.
    assert not call('guard_node/reset').success
    start_arms(graph)
    guard.says('arm_node is back and holds by itself')
    assert wait(lambda: 'stopped: guard_node' in robot.report('arm_node').message)
    assert 'reset it first' in call('arm_node/reset').message
    assert call('guard_node/reset').success
    assert wait(lambda: call('arm_node/reset').success)
    set_in_motion(robot, profile, wait)


def test_without_its_guard_the_arm_node_holds(graph, robot, recorder, guarded, profile, wait):
    guard, _ = guarded
    set_in_motion(robot, profile, wait)
    killed = time.time()
    guard.process.send_signal(signal.SIGKILL)
    guard.wait()
    assert wait(lambda: robot.reported('arm_node', 'holding: guard_node is silent for'))
    robot.live(0.5)
    positions = recorder.after(killed)
    moved = [i for i in range(1, len(positions)) if positions[i][1][0] != positions[i - 1][1][0]]
    assert_in_time(recorder, killed, positions[moved[-1]][0] if moved else killed)
    # Not latched: with another guard it goes on.
    graph.process('guard_node', diagnostics_rate=10.0).says('watching over')
    assert wait(lambda: 'guard_node' not in robot.report('arm_node').message)
    set_in_motion(robot, profile, wait)


def test_arms_that_were_told_to_leave_are_not_missed(robot, guarded, wait):
    guard, arms = guarded
    arms.process.send_signal(signal.SIGTERM)
    assert arms.wait_at_most(2.0) == 0
    robot.live(1.0)
    assert robot.report('guard_node').message == 'watching; arm_node is not heard'
    assert not robot.reported('guard_node', 'stopped')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_guard_leaves_on_a_signal(guarded, number):
    guard, _ = guarded
    guard.process.send_signal(number)
    assert guard.wait_at_most(2.0) == 0
    assert 'Traceback' not in ''.join(guard.lines)
