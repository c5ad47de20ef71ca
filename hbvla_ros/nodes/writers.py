# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One writer: who else publishes commands to the robot.

Drivers obey whoever speaks last. Where a leader arm or a second program commands the same topic,
the arms go back and forth between two wills, whatever either of them checks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rclpy.node import Node

# Who may publish commands: one commands, the other holds when that one is dead.
WRITERS = ('arm_node', 'guard_node')
# Shortly after a publisher is discovered its node has no name yet, s; on a busy machine that takes
# more than a second, and a guard that is started again must not stop the arms by that.
_PATIENCE = 2.5
_NO_NAME = '_NODE_NAME_UNKNOWN'


class WriterWatch:
    """Looks for publishers on command topics that are none of ours.

    Args:
        node: who looks; ours are the nodes :data:`WRITERS` in its namespace.
        topics: command topics as the profile writes them.
    """

    def __init__(self, node: Node, topics: Sequence[str]) -> None:
        """Nothing is looked up before :meth:`strange`."""
        self._node, self._topics = node, list(topics)
        self._nameless: dict[str, float] = {}

    def strange(self) -> str:
        """Topic and name of a foreign publisher in one line, empty if there is none."""
        nameless = {}
        for topic in self._topics:
            for one in self._node.get_publishers_info_by_topic(topic):
                name, namespace = one.node_name, one.node_namespace
                if name in WRITERS and namespace == self._node.get_namespace():
                    continue
                if name and not name.startswith(_NO_NAME):
                    return f'{topic} has another writer, {namespace.rstrip("/")}/{name}'
                nameless[topic] = self._nameless.get(topic, time.monotonic())
        self._nameless = nameless
        # One that stays without a name is no node of ROS, and no less of a writer.
        for topic, since in nameless.items():
            if time.monotonic() - since > _PATIENCE:
                return f'{topic} has another writer, which has no name'
        return ''
