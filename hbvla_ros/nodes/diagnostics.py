# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Health reports on /diagnostics, and rates over the time between two of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Header

from hbvla_ros.nodes.conversions import to_time

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Reporter:
    """Publishes one status of a node."""

    def __init__(self, node: Node, hardware: str) -> None:
        """Make the publisher; ``hardware`` is the robot the node works for."""
        self._name, self._hardware = node.get_fully_qualified_name(), hardware
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._node = node

    def publish(self, level: bytes, message: str, values: Mapping[str, object], now: float) -> None:
        """Publish level, one line and named values, stamped ``now`` in s."""
        self._publisher.publish(
            DiagnosticArray(
                header=Header(stamp=to_time(now)),
                status=[status(self._name, self._hardware, level, message, values)],
            )
        )

    def all_arrived(self, limit: Duration) -> bool:
        """Whether every reader has what was published, waiting for that within ``limit``."""
        return bool(self._publisher.wait_for_all_acked(limit))

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_publisher(self._publisher)


def status(
    name: str, hardware: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """A status message; numbers are shortened to four significant digits."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def _text(value: object) -> str:
    if value is None:
        return 'unknown'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


class RateMeter:
    """Events per second since the last reading, on the monotonic clock."""

    def __init__(self) -> None:
        """Start to count."""
        self._count, self._since = 0, time.monotonic()

    def tick(self) -> None:
        """Count one event."""
        self._count += 1

    def read(self) -> float:
        """Rate in Hz since the previous reading."""
        now = time.monotonic()
        rate = self._count / max(now - self._since, 1e-6)
        self._count, self._since = 0, now
        return rate
