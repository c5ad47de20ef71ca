# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Heartbeats: a node says that its executor still runs, others notice when it no longer does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from hbvla_ros.nodes.conversions import to_time

# What the first word of a heartbeat says of a node that works, and its second of one that stopped.
ACTIVE, STOPPED = 'active', 'stopped'
# What follows it is why others must hold while they hear this, and only so long.
HOLD = ' hold: '
# A heart that missed its beats for so long, s, may be taken for dead by now: the shortest
# heartbeat_timeout of a profile is longer.
_MISSED = 0.2
# Stamps of its own that a node remembers: some seconds.
_REMEMBERED = 100


class Heartbeat:
    """Publishes ``~/heartbeat`` (std_msgs/Header) from a node's executor.

    The stamp is the system's time also in simulated time, so that no two beats have the same.

    Args:
        node: whose heart it is.
        rate: beats per second, Hz.
        label: gives the lifecycle state, with `` stopped`` behind it where that is so, and
            :data:`HOLD` with a reason behind that.
    """

    def __init__(self, node: Node, rate: float, label: Callable[[], str]) -> None:
        """Beat from now on."""
        self._node, self._label = node, label
        self._stamps: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._last, self._interrupted = time.monotonic(), -float('inf')
        self._publisher = node.create_publisher(Header, '~/heartbeat', 1)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(1.0 / rate, self.beat, clock=clock)

    def beat(self) -> None:
        """Beat now, for instance because the state has changed."""
        now = time.monotonic()
        if now - self._last > _MISSED:
            self._interrupted = now
        self._last = now
        stamp = to_time(time.time())
        self._stamps.append((stamp.sec, stamp.nanosec))
        self._publisher.publish(Header(stamp=stamp, frame_id=self._label()))

    def since_interruption(self) -> float:
        """Seconds since it beat again after it had not for long; infinite if it always has.

        A heart that finds itself late beats at once.
        """
        if time.monotonic() - self._last > _MISSED:
            self.beat()
        return time.monotonic() - self._interrupted

    def is_own(self, message: Header) -> bool:
        """Whether this heart beat so, and not that of a second node of the same name."""
        return (message.stamp.sec, message.stamp.nanosec) in self._stamps

    def destroy(self) -> None:
        """Stop beating."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)


class LivedTime:
    """Seconds that this process got on for: a clock that stands still when its owner does.

    A machine that stops for a second must not make everybody look dead to everybody else. Messages
    that came meanwhile are read only after the timers that would judge by their absence.

    Args:
        period: s between two calls of :meth:`turn`; longer gaps count as twice this.
    """

    def __init__(self, period: float) -> None:
        """Start at 0."""
        self._most, self._lived, self._last = 2.0 * period, 0.0, time.monotonic()

    def turn(self) -> None:
        """To be called by a timer, every ``period``."""
        self._lived, self._last = self.now(), time.monotonic()

    def now(self) -> float:
        """Seconds lived so far."""
        return self._lived + min(time.monotonic() - self._last, self._most)


class HeartbeatWatch:
    """Listens to another node's heartbeat.

    Args:
        node: who listens.
        name: the other node, in the same namespace.
        timeout: s of silence after which it counts as dead.
        clock: the listener's time.

    Attributes:
        name: the other node.
        state: its newest ``frame_id``, empty before the first.
    """

    def __init__(self, node: Node, name: str, timeout: float, clock: LivedTime) -> None:
        """Subscribe."""
        self.name, self.state = name, ''
        self._node, self._timeout, self._clock = node, timeout, clock
        self._heard: float | None = None
        self._subscription = node.create_subscription(Header, f'{name}/heartbeat', self._receive, 5)

    @property
    def was_heard(self) -> bool:
        """Whether it was heard at all."""
        return self._heard is not None

    @property
    def is_silent(self) -> bool:
        """Whether it was heard once and then no more."""
        return self.was_heard and self.age() > self._timeout

    @property
    def is_heard(self) -> bool:
        """Whether it was heard just now."""
        return self.was_heard and not self.is_silent

    @property
    def was_active(self) -> bool:
        """Whether it worked when it was heard last."""
        return self._words()[:1] == [ACTIVE]

    @property
    def has_stopped(self) -> bool:
        """Whether it said that it has stopped when it was heard last."""
        return STOPPED in self._words()

    @property
    def hold(self) -> str:
        """Why it told others to hold when it was heard last, empty if it did not."""
        return self.state.partition(HOLD)[2]

    def _words(self) -> list[str]:
        return self.state.partition(HOLD)[0].split()

    def age(self) -> float:
        """Seconds since the last beat, infinite before the first."""
        return float('inf') if self._heard is None else self._clock.now() - self._heard

    def forget(self) -> None:
        """As if it had never been heard."""
        self.state, self._heard = '', None

    def _receive(self, message: Header) -> None:
        self.state, self._heard = message.frame_id, self._clock.now()

    def destroy(self) -> None:
        """Remove the subscription."""
        self._node.destroy_subscription(self._subscription)
