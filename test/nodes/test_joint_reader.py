# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Joint states by age and by stamp, on a robot's clock and on a simulator's."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from hbvla_ros.nodes import joint_reader
from hbvla_ros.nodes.conversions import joint_state, to_time
from hbvla_ros.nodes.joint_reader import JointReader


class Listener(Node):
    """A node with a reader, as the policy and the arm node have one."""

    def __init__(self, profile, **options):
        super().__init__('listener', **options)
        self.reader = JointReader(self, profile)


class Drivers(Node):
    """Publishes the joint states of both arms, and /clock, when told to."""

    def __init__(self, profile, **options):
        super().__init__('drivers', **options)
        self._arms = [
            (a, self.create_publisher(JointState, a.state_topic, 5)) for a in profile.arms
        ]
        self._clock = self.create_publisher(Clock, '/clock', 1)

    def joints(self, *stamps):
        for (arm, publisher), stamp in zip(self._arms, stamps, strict=True):
            publisher.publish(joint_state(arm.names, np.full(7, stamp % 1.0), stamp))

    def tick(self, now):
        self._clock.publish(Clock(clock=to_time(now)))

    def are_heard(self):
        return all(publisher.get_subscription_count() == 1 for _, publisher in self._arms)


class SteadyClock:
    """A monotonic clock that goes on when told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def steady(monkeypatch):
    clock = SteadyClock()
    monkeypatch.setattr(joint_reader, 'time', clock)
    return clock


@pytest.fixture
def drivers(graph, profile):
    return graph.add(Drivers, profile)


def heard(graph, drivers, profile, wait, *stamps, **parameters):
    """A reader that has got one joint state of each arm."""
    node = graph.add(Listener, profile, **parameters)
    assert wait(drivers.are_heard)
    if parameters:
        assert wait(lambda: (drivers.tick(10.0), node.get_clock().now().nanoseconds)[1] > 0)
    assert node.reader.age() == float('inf') and node.reader.at(1.0) == (
        None,
        'no joint states yet',
    )
    drivers.joints(*stamps)
    assert wait(lambda: node.reader.newest() is not None)
    return node


def test_pose_belongs_to_the_image(graph, drivers, profile, wait):
    reader = heard(graph, drivers, profile, wait, 5.25, 5.25).reader
    drivers.joints(5.5, 5.5)
    assert wait(lambda: reader.newest()[0] == 0.5)
    pose, problem = reader.at(5.26)
    assert pose[0] == 0.25 and problem == ''
    # image_skew 0.02 s and one period of 0.02 s
    assert reader.at(5.285)[0] is not None and reader.at(5.295)[0] is None


@pytest.mark.parametrize(
    'left, right, expected',
    [
        (5.0, 5.1, 'right/joint_states is stamped 0.100 s after the image, more than 0.040 s'),
        (3.0, 5.0, 'left/joint_states is stamped 2.000 s before the image, more than 0.040 s'),
        (0.0, 5.0, 'left/joint_states has no stamps'),
    ],
)
def test_pose_of_another_time_is_not_given(graph, drivers, profile, wait, left, right, expected):
    pose, problem = heard(graph, drivers, profile, wait, left, right).reader.at(5.0)
    assert pose is None and problem.startswith(expected)


def test_age_on_a_robot_is_monotonic_time_whatever_the_clock_topic_says(
    graph, drivers, profile, wait, steady
):
    reader = heard(graph, drivers, profile, wait, 5.0, 5.0).reader
    for _ in range(6):
        drivers.tick(10.0)
        steady.now += 0.05
        time.sleep(0.05)
    assert reader.age() == pytest.approx(0.3)


def test_age_in_simulated_time_forgives_a_slow_simulator_only(
    graph, drivers, profile, wait, steady
):
    node = heard(graph, drivers, profile, wait, 10.0, 10.0, use_sim_time=True)
    steady.now += 0.4
    assert node.reader.age() == pytest.approx(0.0, abs=1e-6)
    drivers.tick(10.3)
    assert wait(lambda: node.reader.age() == pytest.approx(0.3, abs=1e-6))
    drivers.tick(100.0)  # a clock that leaps is no evidence alone
    assert wait(lambda: node.reader.age() == pytest.approx(0.4))
    drivers.tick(3.0)  # nor one that goes back
    assert wait(lambda: node.get_clock().now().nanoseconds == 3_000_000_000)
    assert node.reader.age() == pytest.approx(0.4)
