# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A dead-man's button: the arms may move only while somebody keeps it pressed.

What is not known counts as released: before the first message, after a silence, with a button that
the device does not have, with two devices at once.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Joy

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.heartbeat import LivedTime
from hbvla_ros.nodes.parameters import Parameter

DEAD_MAN_TABLE = (
    Parameter(
        'dead_man_topic',
        '',
        'sensor_msgs/Joy with a button that must be kept pressed for the arms to move; empty: off.',
    ),
    Parameter('dead_man_button', 0, 'Index of that button in buttons.', low=0, high=1000),
    Parameter(
        'dead_man_timeout',
        0.25,
        'Without a message for so long the button counts as released, s.',
        low=0.05,
        high=1.0,
    ),
)


class DeadManButton:
    """Listens to one button of a ``sensor_msgs/Joy``.

    Args:
        node: who listens.
        topic: of the device; empty for no button, which never says to hold.
        button: its index in ``buttons``.
        timeout: s of silence after which it counts as released.
        clock: the listener's time.
        heard: is called after each message.

    Raises:
        HbvlaError: ``topic`` is no name of a topic.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        button: int,
        timeout: float,
        clock: LivedTime,
        heard: Callable[[], None],
    ) -> None:
        """Subscribe; not pressed until it is heard to be."""
        self._node, self._topic, self._button = node, topic, button
        self._timeout, self._clock, self._heard = timeout, clock, heard
        self._last: float | None = None
        self._buttons: list[int] = []
        if not topic:
            return
        # The newest only: of a button that was released since, nobody wants the queue.
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        try:
            node.create_subscription(Joy, topic, self._receive, quality)
        except Exception as error:
            first = str(error).splitlines()[0]
            raise HbvlaError(f'parameter dead_man_topic: {topic!r}: {first}') from error

    def reason(self) -> str:
        """Why the arms must hold, empty while the button is pressed or where there is none."""
        if not self._topic:
            return ''
        if self._last is None:
            return f'dead-man: nothing heard on {self._topic}'
        if self._clock.now() - self._last > self._timeout:
            return f'dead-man: {self._topic} is silent'
        if self._node.count_publishers(self._topic) > 1:
            return f'dead-man: {self._topic} has two publishers'
        count = len(self._buttons)
        if self._button >= count:
            return f'dead-man: {self._topic} has {count} buttons and no number {self._button}'
        if not self._buttons[self._button]:
            return f'dead-man: button {self._button} of {self._topic} is not pressed'
        return ''

    def state(self) -> str:
        """``off``, ``pressed`` or the reason to hold, for a report."""
        return self.reason() or ('pressed' if self._topic else 'off')

    def _receive(self, message: Joy) -> None:
        self._last, self._buttons = self._clock.now(), list(message.buttons)
        self._heard()
