# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Bringing a fault about and ending it: what is asked of drivers and policy, done to processes."""

from __future__ import annotations

import itertools
import time

from rclpy.node import Node
from std_msgs.msg import String

from hbvla_ros.nodes.faults import kinds, request
from hbvla_ros.nodes.faults.cast import Cast
from hbvla_ros.nodes.faults.kinds import Kind

FLOOD_SECONDS, _FLOOD_PERIOD = 1.2, 0.005


class Deeds:
    """Brings faults about with a cast of processes.

    Args:
        node: on whose behalf.
        cast: the processes.
    """

    def __init__(self, node: Node, cast: Cast) -> None:
        """Nothing is asked yet."""
        self._cast = cast
        self._faults = request.FaultSource(node)
        self._instructions = node.create_publisher(String, 'policy_node/instruction', 5)
        self._jumps = itertools.count()

    def begin(self, kind: Kind) -> float:
        """Bring a fault about; when it began, s on the monotonic clock."""
        begun = time.monotonic()
        faults = dict(kind.faults)
        if request.CLOCK_BACK in faults:
            # Each jump has its number: a request that is heard twice is still one jump.
            faults[request.CLOCK_BACK] = [next(self._jumps), faults[request.CLOCK_BACK]]
        if faults:
            self._faults.ask(faults)
        if kind.pulse:
            time.sleep(kind.pulse)
            self.ask_nothing()
        if kind.deed == kinds.KILL:
            return self._cast.kill(kind.victim)
        if kind.deed == kinds.PAUSE:
            return self._cast.pause(kind.victim)
        if kind.deed == kinds.INTRUDE:
            self._cast.intrude()
        if kind.deed == kinds.FLOOD:
            self._flood()
        return begun

    def ask_nothing(self) -> None:
        """Drivers and policy are not to fail any more."""
        self._faults.ask({})

    def _flood(self) -> None:
        """Send another instruction 200 times a second."""
        end = time.monotonic() + FLOOD_SECONDS
        for number in itertools.count():
            if time.monotonic() > end:
                return
            self._instructions.publish(String(data=f'swing the arms {number} times'))
            time.sleep(_FLOOD_PERIOD)

    def end(self, kind: Kind) -> None:
        """End the fault if it lasts, and no more: whether the arms go on is another matter."""
        self.ask_nothing()
        if kind.deed == kinds.KILL and not self._cast.runs(kind.victim):
            self._cast.bring(kind.victim)
        if kind.deed == kinds.PAUSE:
            self._cast.resume(kind.victim)
        if kind.deed == kinds.INTRUDE and self._cast.runs('intruder'):
            self._cast.dismiss('intruder')
