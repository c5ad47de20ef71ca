# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""rosbag2 folders and single storage files through ``rosbags``, with errors of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from rosbags.highlevel import AnyReader

from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.message_types import message_types

Result = TypeVar('Result')

# How the library says that a message is not as long as its bytes.
_TOO_LONG = 'size mismatch'


class Topic(NamedTuple):
    """A recorded topic: its message type and number of messages."""

    type: str
    messages: int


class RawMessage(NamedTuple):
    """A message that is not deserialized; ``time`` in ns is when it was recorded."""

    topic: str
    time: int
    type: str
    data: bytes


class BagFile:
    """One bag, read in a ``with`` statement or between :meth:`open` and :meth:`close`.

    Bags without message definitions are read with those of
    :mod:`hbvla_ros.recordings.message_types`.
    """

    def __init__(self, path: Path) -> None:
        """Name the bag."""
        self.path = path

    def open(self) -> BagFile:
        """Open it.

        Raises:
            HbvlaError: not readable.
        """
        self._reader = self._guard(self._opened)
        return self

    def close(self) -> None:
        """Close it."""
        self._reader.close()

    def __enter__(self) -> BagFile:
        """Open it."""
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _opened(self) -> AnyReader:
        reader = AnyReader([self.path], default_typestore=message_types())
        reader.open()
        return reader

    @property
    def topics(self) -> dict[str, Topic]:
        """Topics by name."""
        found: dict[str, Topic] = {}
        for connection in self._reader.connections:
            before = found.get(connection.topic, Topic(connection.msgtype, 0))
            if before.type != connection.msgtype:
                raise HbvlaError(
                    f'{self.path}: topic {connection.topic} has messages of two types, '
                    f'{before.type} and {connection.msgtype}; record it again'
                )
            found[connection.topic] = Topic(before.type, before.messages + connection.msgcount)
        return found

    @property
    def span(self) -> tuple[int, int]:
        """When the first message was recorded, and the first time after the last one, in ns."""
        return int(self._reader.start_time), int(self._reader.end_time)

    def messages(
        self, topics: Sequence[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[RawMessage]:
        """Messages of some topics in the order they were recorded.

        Args:
            topics: names.
            start: first time in ns.
            stop: first time in ns that is too late.

        Raises:
            HbvlaError: the bag is damaged.
        """
        wanted = [c for c in self._reader.connections if c.topic in topics]
        if not wanted:
            return
        messages = self._guard(lambda: iter(self._reader.messages(wanted, start, stop)))
        while (entry := self._guard(lambda: next(messages, None))) is not None:
            connection, time, data = entry
            yield RawMessage(connection.topic, time, connection.msgtype, data)

    def parse(self, message: RawMessage) -> Any:
        """The message's fields.

        Raises:
            HbvlaError: it is damaged.
        """
        try:
            return self._reader.deserialize(message.data, message.type)
        except Exception as error:  # IndexError, struct.error and others get through
            content = self._without_surplus(message) if _TOO_LONG in str(error) else None
            if content is None:
                raise HbvlaError(
                    f'{self.path}: a message of {message.topic} is damaged; record it again'
                ) from error
            return content

    def _without_surplus(self, message: RawMessage) -> Any:
        """A message with bytes of no meaning behind it, None if that is not what is wrong.

        rclpy's ``serialize_message`` leaves them, more behind longer messages, so bags that a
        program wrote have them; those of ``ros2 bag record`` have none.
        """
        short, long = 0, len(message.data)
        while long - short > 1:
            length = (short + long) // 2
            try:
                return self._reader.deserialize(message.data[:length], message.type)
            except Exception as error:
                if _TOO_LONG in str(error):
                    long = length
                else:
                    short = length
        return None

    def _guard(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except Exception as error:  # also those of decompressors, SQLite and YAML
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise HbvlaError(
                f'{self.path}: not a readable bag ({reason}); record it again or repair it with '
                '"ros2 bag reindex"'
            ) from error
