# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which faults there are to be at present: one latched topic that drivers and policy listen to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

TOPIC = 'faults'
# Of the drivers; the values are camera names, or true, or [number of the request, seconds].
CAMERA_STOPS, CAMERA_FREEZES, BAD_IMAGES = 'camera stops', 'camera freezes', 'malformed images'
JOINTS_STOP, WRONG_NAMES = 'joint states stop', 'wrong joint names'
CLOCK_BACK = 'clock jumps back'
# Of the policy; values are true, seconds, or what is written into the actions.
HANG, BAD_ACTION, OUTSIDE, SPIKE = 'hang', 'not finite', 'outside limits', 'spike'
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class FaultSource:
    """Publishes on behalf of a node which faults there are to be."""

    def __init__(self, node: Node) -> None:
        """No faults yet."""
        self._publisher = node.create_publisher(String, TOPIC, _LATCHED)
        self.present: dict[str, Any] = {}

    def set(self, **faults: Any) -> None:
        """These and no others; the names are those of this module with ``_`` for blanks."""
        self.ask({name.replace('_', ' '): value for name, value in faults.items()})

    def ask(self, faults: Mapping[str, Any]) -> None:
        """These and no others."""
        self.present = dict(faults)
        self._publisher.publish(String(data=json.dumps(self.present)))


def listen(node: Node, receive: Callable[[dict[str, Any]], None]) -> None:
    """Have a callback called with every new set of faults."""
    node.create_subscription(
        String, TOPIC, lambda message: receive(json.loads(message.data)), _LATCHED
    )
