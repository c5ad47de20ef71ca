# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A bag as a stream of deserialized messages, each with the clocks that a live node has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hbvla_ros.recordings.bag_file import BagFile

NANO = 1_000_000_000


@dataclass(frozen=True)
class StreamMessage:
    """One message as it arrived.

    Attributes:
        topic: its topic in the bag.
        received: when it arrived, ns on a clock that never goes back.
        clock: the robot's system clock then, ns; the same unless a degradation sets it.
        content: its fields.
    """

    topic: str
    received: int
    clock: int
    content: Any


def stream(bag: BagFile, topics: Sequence[str]) -> Iterator[StreamMessage]:
    """Messages of some topics of an open bag, in the order they were received.

    Raises:
        HbvlaError: the bag or a message is damaged.
    """
    for message in bag.messages(topics):
        yield StreamMessage(message.topic, message.time, message.time, bag.parse(message))
