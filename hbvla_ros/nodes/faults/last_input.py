# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""When the last valid input of a fault came: from then on the time to the hold counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node

from hbvla_ros.nodes.faults import kinds
from hbvla_ros.nodes.faults.intruder import NAME as INTRUDER
from hbvla_ros.nodes.faults.kinds import Kind
from hbvla_ros.nodes.faults.recorder import Recorder, SeenChunk

# The arms must hold for so long after the bound, s.
HOLDING = 0.4
# A stream that was not heard for so long has stopped.
_SILENCE = 0.4


class LastInput:
    """Finds the last valid input in what was recorded.

    Args:
        node: which sees the publishers.
        recorder: everything that was seen.
        wait: waits for a condition, and raises where it does not come true; takes also what it is.
    """

    def __init__(
        self, node: Node, recorder: Recorder, wait: Callable[[Callable[[], Any], str], None]
    ) -> None:
        """Nothing is looked for yet."""
        self._node, self._recorder, self._wait = node, recorder, wait

    def of(self, kind: Kind, begun: float) -> float:
        """When the last valid input came or, if its rows stay valid, ends; waits for it.

        Args:
            kind: the fault.
            begun: when it began, s on the monotonic clock, as is the result.

        Raises:
            HbvlaError: what has to come of the fault did not come.
        """
        seen = self._recorder
        if kind.valid in (kinds.PICTURE, kinds.JOINTS):
            stream = seen.camera if kind.valid == kinds.PICTURE else seen.joints
            self._wait(lambda: time.monotonic() - stream.valid > _SILENCE, 'the stream stops')
            return stream.valid
        if kind.valid == kinds.CHUNK:
            self._wait(
                lambda: time.monotonic() > self._last_chunk().end + kind.bound + HOLDING,
                'the last chunk ends',
            )
            return self._last_chunk().end
        if kind.valid == kinds.GOOD_CHUNK:
            self._wait(lambda: self._first_outside(begun) < np.inf, 'a chunk outside the limits')
            return self._first_outside(begun)
        if kind.valid == kinds.SOLE_WRITER:
            self._wait(self._is_intruded, 'a second writer')
            return min(time.monotonic(), seen.intruded)
        return begun

    def _is_intruded(self) -> bool:
        """Whether a second writer is known: it may be long before its first message comes."""
        topic = self._recorder.profile.arms[0].command_topic
        writers = self._node.get_publishers_info_by_topic(topic)
        known = any(one.node_name == INTRUDER for one in writers)
        return known or self._recorder.intruded < np.inf

    def _last_chunk(self) -> SeenChunk:
        return [chunk for chunk in list(self._recorder.chunks) if chunk.rows][-1]

    def _first_outside(self, begun: float) -> float:
        bad = (c.received for c in list(self._recorder.chunks) if c.outside and c.received > begun)
        return next(bad, np.inf)
