# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The task in words, from two topics and a parameter; whoever spoke last is right."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

# No task takes more words; a prompt of a megabyte would keep the network busy for long.
MAX_LENGTH = 1000


def instruction_problem(text: str) -> str:
    """Why a text cannot be an instruction, empty if it can."""
    if len(text) <= MAX_LENGTH:
        return ''
    return f'instruction of {len(text)} characters refused; {MAX_LENGTH} are the most'


class InstructionInbox:
    """Keeps the newest text and nothing else.

    However many arrive, each costs no more than an assignment: what follows from a new
    instruction is done when the node next looks.

    Args:
        node: whose topics they are.
        text: the instruction to start with.
    """

    def __init__(self, node: Node, text: str) -> None:
        """Subscribe ``~/instruction`` and the latched ``instruction``."""
        self._node = node
        self._newest = self.text = text.strip()
        self.received = 0
        # People publish plainly, programs such as the simulator latched; a subscription of the one
        # kind misses the other's messages or their past, so each has its own topic.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(String, topic, self._receive, quality)
            for topic, quality in (('~/instruction', QoSProfile(depth=1)), ('instruction', latched))
        ]

    def _receive(self, message: String) -> None:
        self.put(message.data)

    def put(self, text: str) -> str:
        """Take a text; it counts from the next :meth:`changed` on.

        Returns:
            Why it is not taken, empty if it is.
        """
        self.received += 1
        problem = instruction_problem(text)
        if problem:
            self._node.get_logger().error(problem, throttle_duration_sec=1.0)
        else:
            self._newest = text
        return problem

    def changed(self) -> bool:
        """Make the newest text the instruction; whether it is another one than before."""
        newest = self._newest.strip()
        if newest == self.text:
            return False
        self.text = newest
        return True

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
