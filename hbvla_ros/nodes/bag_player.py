# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The thread that plays a bag: what a robot would publish, when it did, with its clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_file import BagFile, RawMessage
from hbvla_ros.recordings.bag_topics import CLOCK_TOPIC

_NANO = 1_000_000_000
# Looks for a stop, and for a clock that is due, at least so often, s.
_TURN = 0.02


class Listener(Protocol):
    """Who is told, on the player's thread."""

    def missing(self) -> list[str]:
        """Topics that nobody listens to yet."""

    def intruder(self) -> str:
        """Who else publishes what is played, empty if nobody."""

    def on_message(self, message: RawMessage) -> None:
        """A message of the bag is due."""

    def on_clock(self, nanoseconds: int) -> None:
        """It is so late in the bag."""


@dataclass(frozen=True)
class Pace:
    """How a bag is played.

    Attributes:
        rate: seconds of the bag a second.
        clock_period: s of real time between two of ``/clock``.
        patience: s to wait for somebody to listen to every topic; 0 does not wait.
        linger: s of the bag's time for which the clock goes on after the last message.
    """

    rate: float
    clock_period: float
    patience: float
    linger: float


class BagPlayer:
    """Plays the topics of one bag in the order and at the pace of their receipt.

    Args:
        bag: opened by the player's thread.
        topics: what is played; with ``/clock`` among them the bag's own time is published, else
            the time of receipt.
        pace: rate and waits.
        listener: is told everything.

    Attributes:
        played: messages so far.
        done: whether the thread has ended.
        failure: why it ended early, empty if it did not.
    """

    def __init__(self, bag: BagFile, topics: list[str], pace: Pace, listener: Listener) -> None:
        """Prepare; nothing is played before :meth:`start`."""
        self._bag, self._topics, self._pace, self._listener = bag, topics, pace, listener
        self._own_clock = CLOCK_TOPIC not in topics
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='player', daemon=True)
        self.played, self.done, self.failure = 0, False, ''
        self._clock_at = -float('inf')

    def start(self) -> None:
        """Begin to wait for listeners, then to play."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with self._bag:
                first, _ = self._bag.span
                if self._wait(first):
                    self._play(first, self._bag.messages(self._topics))
        except Exception as error:
            self.failure = str(error) if isinstance(error, HbvlaError) else repr(error)
        finally:
            self.done = True

    def _wait(self, first: int) -> bool:
        """Let the clock stand at the beginning until everybody is there; False to end."""
        started = time.monotonic()
        while not self._stopping.wait(_TURN):
            self._tick(first)
            missing = self._listener.missing()
            if not missing or self._pace.patience == 0.0:
                self._refuse_intruder()
                return True
            if time.monotonic() - started > self._pace.patience:
                raise HbvlaError(
                    f'nobody listens to {", ".join(missing)} after {self._pace.patience:g} s; '
                    'start policy_node and arm_node with the same robot and namespace'
                )
        return False

    def _play(self, first: int, messages: Iterator[RawMessage]) -> None:
        started, now = time.monotonic(), first
        for message in messages:
            if not self._sleep_until(message.time, first, started):
                return
            now = message.time
            if self._own_clock:
                # Who hears the message must know the time that it is for.
                self._tick(now, due=True)
            self._listener.on_message(message)
            self.played += 1
        end = now + round(self._pace.linger * _NANO)
        if self._own_clock:
            self._sleep_until(end, first, started)
        else:
            self._stopping.wait(self._pace.linger / self._pace.rate)

    def _sleep_until(self, moment: int, first: int, started: float) -> bool:
        """Wait for a moment of the bag, with the clock going on; False to end."""
        due = started + (moment - first) / _NANO / self._pace.rate
        while (rest := due - time.monotonic()) > 0.0:
            if self._stopping.wait(min(rest, _TURN, self._pace.clock_period)):
                return False
            elapsed = (min(time.monotonic(), due) - started) * self._pace.rate
            self._tick(first + round(elapsed * _NANO))
        return not self._stopping.is_set()

    def _tick(self, moment: int, due: bool = False) -> None:
        """Publish the time if it is due, and look round."""
        now = time.monotonic()
        if due or now - self._clock_at >= self._pace.clock_period:
            if self._own_clock:
                self._listener.on_clock(moment)
            self._clock_at = now
            self._refuse_intruder()

    def _refuse_intruder(self) -> None:
        intruder = self._listener.intruder()
        if intruder:
            raise HbvlaError(
                f'{intruder}: a robot or another player is in this graph; replay in a ROS domain '
                'of its own (ROS_DOMAIN_ID)'
            )
