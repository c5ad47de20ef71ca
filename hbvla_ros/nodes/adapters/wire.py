# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What is on the command topics of a robot, whoever publishes it."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters.interbotix import JointSingleCommand
from hbvla_ros.nodes.adapters.writer import make_adapter


def command_topics(profile: RobotProfile) -> list[str]:
    """Topics on which the robot is commanded, as the profile writes them; actions are not in it."""
    topics = []
    for arm in profile.arms:
        topics.append(arm.command_topic)
        if arm.gripper_adapter == 'interbotix_single':
            topics.append(arm.gripper_command_topic)
    return topics


class WireReader:
    """What is sent to the robot, by whomever: the last command seen of every arm.

    Attributes:
        pose: (A,) as last commanded, NaN where nothing was seen.
        received: monotonic time in s of the newest command.
    """

    def __init__(self, node: Node, profile: RobotProfile) -> None:
        """Subscribe to every command topic.

        Raises:
            HbvlaError: an adapter needs messages that are not installed.
        """
        self._node = node
        self.pose, self.received = np.full(len(profile.action_names), np.nan), -np.inf
        first = 0
        self._subscriptions: list[Any] = []
        for arm in profile.arms:
            adapter = make_adapter(arm)
            part = slice(first, first + len(adapter.names))
            first += len(arm.names)
            self._listen(adapter, arm.command_topic, part)
            if arm.gripper_adapter == 'interbotix_single':
                gripper = slice(first - 1, first)
                self._listen(JointSingleCommand(arm), arm.gripper_command_topic, gripper)

    def _listen(self, adapter: Any, topic: str, part: slice) -> None:
        receive = partial(self._receive, adapter, part)
        self._subscriptions.append(
            self._node.create_subscription(adapter.message_type, topic, receive, 5)
        )

    def _receive(self, adapter: Any, part: slice, message: Any) -> None:
        self.received = time.monotonic()
        try:
            self.pose[part] = adapter.parse(message)
        except HbvlaError as error:
            self._node.get_logger().error(f'on the wire: {error}', throttle_duration_sec=1.0)

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
