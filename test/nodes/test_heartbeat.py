# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Hearts that beat and are missed, and the time by which they are."""

from __future__ import annotations

import time
import types

import pytest
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray, Header

from hbvla_ros.nodes import heartbeat, writers
from hbvla_ros.nodes.heartbeat import Heartbeat, HeartbeatWatch, LivedTime
from hbvla_ros.nodes.writers import WriterWatch


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that a test sets."""
    now = [100.0]
    stand_in = types.SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    for module in (heartbeat, writers):
        monkeypatch.setattr(module, 'time', stand_in)
    return now


def test_time_in_which_nobody_got_on_does_not_count(clock):
    lived = LivedTime(0.05)
    for _ in range(10):
        clock[0] += 0.05
        lived.turn()
    assert lived.now() == pytest.approx(0.5)
    clock[0] += 30.0
    assert lived.now() == pytest.approx(0.6), 'the machine stood still'
    lived.turn()
    clock[0] += 0.05
    assert lived.now() == pytest.approx(0.65)


def test_silence_counts_once_it_was_heard(graph, clock, wait):
    lived = LivedTime(0.05)
    listener, other = graph.add(Node, 'listener'), graph.add(Node, 'other')
    watch = HeartbeatWatch(listener, 'other', 0.3, lived)
    assert watch.age() == float('inf') and not watch.is_silent and not watch.is_heard
    label = ['inactive']
    heart = Heartbeat(other, 20.0, lambda: label[0])
    assert wait(lambda: watch.is_heard)
    assert watch.state == 'inactive' and not watch.was_active and not watch.has_stopped
    label[0] = 'active stopped'
    assert wait(lambda: watch.was_active and watch.has_stopped) and watch.hold == ''
    label[0] = 'active hold: it has stopped'
    assert wait(lambda: watch.hold == 'it has stopped')
    assert watch.was_active and not watch.has_stopped, 'a reason says nothing of the state'
    heart.destroy()
    # Beats that were on their way have come by now.
    wait(lambda: False, 0.2)
    for _ in range(7):
        clock[0] += 0.05
        lived.turn()
    assert watch.is_silent and not watch.is_heard and watch.was_active
    watch.forget()
    assert not watch.is_silent and watch.state == ''


def test_a_heart_knows_that_it_has_missed_beats(graph, wait):
    node = graph.add(Node, 'one')
    heart, beats = Heartbeat(node, 20.0, lambda: 'active'), []
    node.create_subscription(Header, 'one/heartbeat', beats.append, 20)
    assert wait(lambda: len(beats) > 3)
    # Before the wait this machine may have stood still.
    assert wait(lambda: heart.since_interruption() > 0.3)
    heart._last -= 1.0
    assert heart.since_interruption() < 0.1
    assert wait(lambda: 0.3 < heart.since_interruption() < float('inf'))


def test_a_beat_of_somebody_else_is_told_apart(graph, wait):
    one, two = graph.add(Node, 'one'), graph.add(Node, 'two')
    heart, other = (Heartbeat(node, 20.0, lambda: 'active') for node in (one, two))
    heard = {'one': [], 'two': []}
    for name, beats in heard.items():
        one.create_subscription(Header, f'{name}/heartbeat', beats.append, 5)
    assert wait(lambda: all(len(beats) > 3 for beats in heard.values()))
    assert all(heart.is_own(beat) for beat in heard['one'])
    assert not any(heart.is_own(beat) for beat in heard['two'])
    assert all(other.is_own(beat) for beat in heard['two'])


class Graph:
    """A node as far as a watch of writers asks it."""

    def __init__(self, *publishers):
        self.publishers, self.first = publishers, 0

    def get_namespace(self):
        return '/cell'

    def get_publishers_info_by_topic(self, topic):
        kind = type('Info', (), {})
        infos = []
        for number, (namespace, name) in enumerate(self.publishers if topic == 'commands' else ()):
            info = kind()
            info.node_namespace, info.node_name = namespace, name
            info.endpoint_gid = [self.first + number] * 16
            infos.append(info)
        return infos


@pytest.mark.parametrize(
    'namespace, name, expected',
    [
        ('/cell', 'arm_node', ''),
        ('/cell', 'guard_node', ''),
        ('/cell', 'teleop', 'commands has another writer, /cell/teleop'),
        ('/other', 'arm_node', 'commands has another writer, /other/arm_node'),
        ('/', 'leader', 'commands has another writer, /leader'),
    ],
)
def test_ours_are_two_nodes_of_the_same_namespace(namespace, name, expected):
    node = Graph(('/cell', 'arm_node'), (namespace, name))
    assert WriterWatch(node, ['states', 'commands']).strange() == expected


def test_one_that_has_no_name_yet_is_given_time(clock):
    node = Graph(('', '_NODE_NAME_UNKNOWN_'))
    watch = WriterWatch(node, ['commands'])
    assert watch.strange() == ''
    clock[0] += 4.0
    node.first = 1
    assert watch.strange() == ''
    clock[0] += 4.0
    assert watch.strange() == '', 'another one, which has its own time'
    clock[0] += 4.0
    assert watch.strange() == 'commands has another writer, which has no name'


def test_real_publishers_have_names(graph, wait):
    node, other = graph.add(Node, 'arm_node'), graph.add(Node, 'panel')
    node.create_publisher(Float64MultiArray, 'commands', 1)
    watch = WriterWatch(node, ['commands'])
    assert watch.strange() == ''
    other.create_publisher(Float64MultiArray, 'commands', 1)
    assert wait(lambda: watch.strange() == 'commands has another writer, /panel')
