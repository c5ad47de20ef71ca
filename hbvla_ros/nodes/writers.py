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
# After a publisher is discovered its node has no name yet, s. The name comes in a message of its
# own, and one that was lost is repeated by DDS after 3 s.
_PATIENCE = 5.0
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
        # When a publisher without a name was first seen on a topic.
        self._nameless: dict[tuple[str, bytes], float] = {}

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
                key = topic, bytes(one.endpoint_gid)
                nameless[key] = self._nameless.get(key, time.monotonic())
        self._nameless = nameless
        # One that stays without a name is no node of ROS, and no less of a writer.
        for (topic, _), since in nameless.items():
            if time.monotonic() - since > _PATIENCE:
                return f'{topic} has another writer, which has no name'
        return ''
