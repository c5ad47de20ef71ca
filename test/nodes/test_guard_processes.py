# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Guard and arm node as processes: each of them killed, asked to leave, and brought back."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

# From the death of a process to the hold, s.
BOUND = 0.5
# From the release of the dead-man's button to the last command that moves an arm, s; and how long
# it may be silent.
RELEASED, SILENT = 0.25, 0.25


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


class Joystick(Node):
    """A device with six buttons, 50 messages a second."""

    def __init__(self, **options):
        super().__init__('joystick', **options)
        self.buttons, self.speaks = [0] * 6, False
        self._publisher = self.create_publisher(Joy, 'joy', 10)
        self.create_timer(0.02, self._turn)

    def _turn(self):
        if self.speaks:
            self._publisher.publish(Joy(buttons=self.buttons))

    def press(self):
        self.buttons, self.speaks = [0, 0, 0, 0, 1, 0], True


@pytest.fixture
def joystick(graph):
    return graph.add(Joystick)


@pytest.fixture
def with_button(graph, robot, recorder, wait):
    """Guard and arm node as processes; the arms may move while button 4 is pressed."""
    guard = graph.process(
        'guard_node', diagnostics_rate=10.0, dead_man_topic='joy', dead_man_button=4,
        dead_man_timeout=SILENT,
    )  # fmt: skip
    guard.says('watching over aloha_sim')
    start_arms(graph)
    assert wait(lambda: robot.last() is not None)


def says_why(robot, wait, reason):
    """Whether both nodes give the reason now."""
    assert wait(lambda: robot.report('guard_node').message == f'{reason}; arm_node holds')
    return wait(lambda: robot.report('arm_node').message == f'holding: guard_node: {reason}')


def goes_on(robot, profile, wait):
    """Whether the arms move again, without any reset."""
    assert wait(lambda: robot.report('guard_node', 'dead-man') == 'pressed')
    assert wait(lambda: 'dead-man' not in robot.report('arm_node').message)
    set_in_motion(robot, profile, wait)
    return robot.report('guard_node', 'stop') == ''


def last_motion(recorder, since):
    """When the last command was sent that is not the one before it; arms moved at ``since``."""
    sent = list(recorder.sent)
    moves = [b[0] for a, b in zip(sent[:-1], sent[1:], strict=True) if (a[1] != b[1]).any()]
    assert any(since - 0.3 < moment <= since + 0.1 for moment in moves)
    return max(moves[-1], since)


def holds_in_time(bring_about, robot, recorder, joystick, profile, wait, reason, bound):
    """Whether a fault of the button holds the arms within ``bound`` s, and they go on after it.

    Of three times one is enough: other work may let a node wait, and not this process.
    """
    late = []
    for _ in range(3):
        joystick.press()
        assert goes_on(robot, profile, wait)
        begun = time.time()
        bring_about()
        assert says_why(robot, wait, reason)
        robot.live(0.5)
        moment = last_motion(recorder, begun)
        robot.live(0.5)
        assert last_motion(recorder, begun) == moment, 'they do not go on by themselves'
        late.append(moment - begun - recorder.stood_still(begun, moment))
        if late[-1] < bound:
            break
    joystick.press()
    assert goes_on(robot, profile, wait)
    assert late[-1] < bound, late
    return True


def test_arms_move_only_while_the_button_is_pressed(
    robot, recorder, with_button, joystick, profile, wait
):
    unknown = 'dead-man: nothing heard on joy'
    assert says_why(robot, wait, unknown)
    robot.send(np.tile(profile.start_pose + 0.1, (50, 1)))
    refused = f'while holding: guard_node: {unknown}'
    assert wait(lambda: robot.report('arm_node', 'last refusal') == refused)
    np.testing.assert_allclose(robot.last(), profile.start_pose)

    def release():
        joystick.buttons = [1, 1, 1, 1, 0, 1]

    reason = 'dead-man: button 4 of joy is not pressed'
    assert holds_in_time(release, robot, recorder, joystick, profile, wait, reason, RELEASED)


@pytest.mark.parametrize(
    'fault, reason, bound',
    [
        ({'speaks': False}, 'dead-man: joy is silent', RELEASED + SILENT),
        ({'buttons': [1] * 4}, 'dead-man: joy has 4 buttons and no number 4', RELEASED),
    ],
)
def test_what_is_not_known_of_the_button_holds_the_arms(
    robot, recorder, with_button, joystick, profile, wait, fault, reason, bound
):
    def fail():
        for name, value in fault.items():
            setattr(joystick, name, value)

    assert holds_in_time(fail, robot, recorder, joystick, profile, wait, reason, bound)


def test_two_devices_at_once_hold_the_arms(robot, with_button, joystick, profile, wait):
    joystick.press()
    assert goes_on(robot, profile, wait)
    other = robot.create_publisher(Joy, 'joy', 10)
    assert says_why(robot, wait, 'dead-man: joy has two publishers')
    robot.destroy_publisher(other)
    assert goes_on(robot, profile, wait)
