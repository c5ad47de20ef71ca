# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The faults that can be put into a recorded stream, as transformations of its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hbvla_ros.recordings.bag_stream import NANO, StreamMessage
from hbvla_ros.recordings.bag_topics import CLOCK_TOPIC

Stream = Iterator[StreamMessage]

# An encoding that exists and is no colour picture, and bytes that are no picture file.
_STRANGE_ENCODING, _NO_PICTURE = '32FC1', b'not a picture'


@dataclass(frozen=True)
class Window:
    """A fault in one bag.

    Attributes:
        argument: what its text names: a joint or seconds.
        topics: streams it is in.
        start, stop: when it is in force, ns on the receiver's clock.
    """

    argument: str
    topics: frozenset[str]
    start: int
    stop: int

    def holds(self, message: StreamMessage) -> bool:
        """Whether a message is affected."""
        return message.topic in self.topics and self.is_open(message)

    def is_open(self, message: StreamMessage) -> bool:
        """Whether it is in force when a message arrives, on whatever topic."""
        return self.start <= message.received < self.stop


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        argument: what it takes: CAMERA, ARM, JOINT, STREAM (camera or arm) or SECONDS.
        required: whether the argument must be given; without one all of them are meant.
        in_the_middle: whether it begins in the middle of the bag unless a time is given.
        apply: the transformation.
    """

    argument: str
    required: bool
    in_the_middle: bool
    apply: Callable[[Stream, Window], Stream]


def _drop(messages: Stream, window: Window) -> Stream:
    return (message for message in messages if not window.holds(message))


def _freeze(messages: Stream, window: Window) -> Stream:
    """New stamps on the last picture before."""
    last: dict[str, Any] = {}
    for message in messages:
        if not window.holds(message):
            last[message.topic] = message.content
        elif message.topic in last:
            still = replace(last[message.topic], header=message.content.header)
            message = replace(message, content=still)
        else:
            last[message.topic] = message.content
        yield message


def _duplicate(messages: Stream, window: Window) -> Stream:
    for message in messages:
        yield message
        if window.holds(message):
            yield message


def _swap_pairs(messages: Stream, window: Window) -> Stream:
    """Of each two messages of a stream the later one first; the earlier follows at once."""
    waiting: dict[str, StreamMessage] = {}
    for message in messages:
        if not window.holds(message):
            yield message
        elif message.topic in waiting:
            yield message
            late = waiting.pop(message.topic)
            yield replace(late, received=message.received, clock=message.clock)
        else:
            waiting[message.topic] = message


def _zero_stamps(messages: Stream, window: Window) -> Stream:
    for message in messages:
        if window.holds(message):
            message = _restamped(message, lambda stamp: 0)
        yield message


def _step_clock(messages: Stream, window: Window) -> Stream:
    """The robot's clock is set: all stamps and the time of day go by the new one."""
    step = round(float(window.argument) * NANO)
    for message in messages:
        if window.is_open(message):
            message = _restamped(message, lambda stamp: stamp + step)
            message = replace(message, clock=message.clock + step)
        yield message


def _reverse_joints(messages: Stream, window: Window) -> Stream:
    """Names, positions and all that goes with them in the opposite order."""
    for message in messages:
        if window.holds(message):
            content = message.content
            fields = {
                name: np.ascontiguousarray(getattr(content, name)[::-1])
                for name in ('position', 'velocity', 'effort')
            }
            content = replace(content, name=list(content.name)[::-1], **fields)
            message = replace(message, content=content)
        yield message


def _spoil_joint(messages: Stream, window: Window) -> Stream:
    for message in messages:
        if window.holds(message) and window.argument in message.content.name:
            position = np.array(message.content.position, dtype=np.float64)
            position[list(message.content.name).index(window.argument)] = np.nan
            message = replace(message, content=replace(message.content, position=position))
        yield message


def _rename_joint(messages: Stream, window: Window) -> Stream:
    for message in messages:
        if window.holds(message):
            names = [
                f'not_{name}' if name == window.argument else name for name in message.content.name
            ]
            message = replace(message, content=replace(message.content, name=names))
        yield message


def _spoil_encoding(messages: Stream, window: Window) -> Stream:
    """Raw images claim another encoding than they have; compressed ones are no picture file."""
    for message in messages:
        if window.holds(message):
            content = message.content
            if hasattr(content, 'format'):
                content = replace(content, data=np.frombuffer(_NO_PICTURE, np.uint8))
            else:
                content = replace(content, encoding=_STRANGE_ENCODING)
            message = replace(message, content=content)
        yield message


def _restamped(message: StreamMessage, change: Callable[[int], int]) -> StreamMessage:
    """The message with another time in its header, or in the clock that it is."""
    content = message.content
    if message.topic == CLOCK_TOPIC:
        return replace(message, content=replace(content, clock=_changed(content.clock, change)))
    if not hasattr(content, 'header'):
        return message
    header = replace(content.header, stamp=_changed(content.header.stamp, change))
    return replace(message, content=replace(content, header=header))


def _changed(stamp: Any, change: Callable[[int], int]) -> Any:
    whole, rest = divmod(change(stamp.sec * NANO + stamp.nanosec), NANO)
    return replace(stamp, sec=int(whole), nanosec=int(rest))


KINDS: Mapping[str, Kind] = {
    'drop-camera': Kind('CAMERA', False, False, _drop),
    'freeze-camera': Kind('CAMERA', False, True, _freeze),
    'wrong-encoding': Kind('CAMERA', False, False, _spoil_encoding),
    'drop-joints': Kind('ARM', False, False, _drop),
    'reorder-joints': Kind('ARM', False, False, _reverse_joints),
    'rename-joint': Kind('JOINT', True, False, _rename_joint),
    'nan-joint': Kind('JOINT', True, False, _spoil_joint),
    'clock-step': Kind('SECONDS', True, True, _step_clock),
    'duplicate': Kind('STREAM', False, False, _duplicate),
    'zero-stamps': Kind('STREAM', False, False, _zero_stamps),
    'out-of-order': Kind('STREAM', False, False, _swap_pairs),
}
