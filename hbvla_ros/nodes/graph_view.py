# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Listening to the ROS 2 graph for a while: who is there, what arrives, how often."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image, JointState

from hbvla_ros.control.alignment import observed_pose
from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.graph_arrivals import Arrivals
from hbvla_ros.nodes.graph_expectations import Expectation, expectations
from hbvla_ros.nodes.writers import WRITERS

# Participants that miss our first announcements make themselves known every 3 s.
_DISCOVERY, _QUIET = 6.0, 1.0
_IMAGES = {'sensor_msgs/msg/CompressedImage': CompressedImage, 'sensor_msgs/msg/Image': Image}


class GraphView:
    """One node that listens to everything a profile expects from the robot; it publishes nothing.

    Args:
        profile: the robot.
        namespace: namespace of the nodes, empty for none.
        context: an initialised context of rclpy.

    Attributes:
        expected: the topics of the profile.
        stop_services: the drivers' own stops, which the guard calls.
        arrivals: by topic as the profile has it, where rates are measured.
        joint_problems: what is wrong with joint states, by topic as the profile has it.
    """

    def __init__(self, profile: RobotProfile, namespace: str, context: Context) -> None:
        """Make the node and its subscriptions."""
        self.expected, self.stop_services = expectations(profile), profile.stop_services
        self.arrivals: dict[str, Arrivals] = {}
        self.joint_problems: dict[str, str] = {}
        self.node = Node(
            f'hbvla_doctor_{os.getpid()}',
            namespace=namespace,
            context=context,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._listen_to(profile)

    def _listen_to(self, profile: RobotProfile) -> None:
        """Subscribe with the quality of service that our nodes have; no image is decoded."""
        arms = {arm.state_topic: arm for arm in profile.arms}
        for expected in self.expected:
            if expected.rate == 0.0:
                continue
            arrivals = self.arrivals[expected.topic] = Arrivals()
            if expected.topic in arms:
                receive = partial(self._receive_joints, arrivals, arms[expected.topic])
                self.node.create_subscription(JointState, expected.topic, receive, expected.quality)
            else:
                count = partial(_count, arrivals)
                kind = _IMAGES[expected.type]
                self.node.create_subscription(
                    kind, expected.topic, count, expected.quality, raw=True
                )

    def _receive_joints(self, arrivals: Arrivals, arm: ArmProfile, message: JointState) -> None:
        arrivals.add()
        try:
            observed_pose(arm, message)
        except HbvlaError as error:
            self.joint_problems[arm.state_topic] = str(error)

    def listen(self, seconds: float) -> None:
        """Wait until nobody new is discovered, then count for so long what arrives."""
        end = time.monotonic() + _DISCOVERY
        known, since = self.nodes(), time.monotonic()
        while time.monotonic() < end and not (known and time.monotonic() > since + _QUIET):
            self._spin(0.1)
            if self.nodes() != known:
                known, since = self.nodes(), time.monotonic()
        self._spin(seconds)
        for arrivals in self.arrivals.values():
            arrivals.end()

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)

    def full(self, topic: str) -> str:
        """Name of a topic with its namespace."""
        return str(self.node.resolve_topic_name(topic))

    def others(self, expected: Expectation) -> list[TopicEndpointInfo]:
        """The other side's ends of a topic: publishers, or who listens to commands."""
        topic = self.full(expected.topic)
        if not expected.commanded:
            return [end for end in self.node.get_publishers_info_by_topic(topic)]
        found = self.node.get_subscriptions_info_by_topic(topic)
        # The guard listens to what is commanded; it is no driver.
        return [end for end in found if end.node_name not in WRITERS]

    def writers(self, expected: Expectation) -> list[str]:
        """Nodes that publish on a topic, as often as they do, in order."""
        topic = self.full(expected.topic)
        return sorted(node_of(end) for end in self.node.get_publishers_info_by_topic(topic))

    def allowed_writers(self) -> list[str]:
        """Our nodes that may publish commands, with their namespace."""
        return [full_name(self.node.get_namespace(), writer) for writer in WRITERS]

    def nodes(self) -> set[str]:
        """All other nodes."""
        return {
            full_name(space, name)
            for name, space in self.node.get_node_names_and_namespaces()
            if name != self.node.get_name()
        }

    def unexpected(self, kind: str) -> list[str]:
        """Topics of a type that the profile does not name."""
        named = {self.full(expected.topic) for expected in self.expected}
        present = self.node.get_topic_names_and_types()
        return [name for name, types in present if kind in types and name not in named]

    def services(self) -> dict[str, list[str]]:
        """Types of all services that are served, by name."""
        return dict(self.node.get_service_names_and_types())

    def is_simulated(self) -> bool:
        """Whether somebody publishes simulated time."""
        return bool(self.node.count_publishers('/clock'))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()


def _count(arrivals: Arrivals, message: Any) -> None:
    arrivals.add()


def node_of(end: TopicEndpointInfo) -> str:
    """Name of the node that has an end of a topic, with its namespace."""
    return full_name(end.node_namespace, end.node_name)


def full_name(namespace: str, name: str) -> str:
    """A node's name with its namespace."""
    return f'{namespace.rstrip("/")}/{name}'
