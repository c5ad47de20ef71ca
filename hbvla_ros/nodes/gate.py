# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The one way out for action chunks, which may be shut and lets no stale chunk through."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from rclpy.qos import QoSProfile
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.latency import LatencyTracker
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.data import ActionChunk
from hbvla_ros.nodes.conversions import chunk_to_message
from hbvla_ros.nodes.lifecycle import ManagedNode


class ChunkGate:
    """Publishes ``action_chunks``, from the executor's thread and from that of the model.

    Every inference is begun under a sequence number. Whatever makes its chunk worthless (another
    instruction or checkpoint, a stop, a deadline that passed) moves the number on, and the chunk
    is dropped when it comes.

    Args:
        node: whose topic it is.
        names: joints of a row, in action order.
        schedule: is told what the arms were sent.
    """

    def __init__(
        self, node: ManagedNode, names: Sequence[str], schedule: InferenceSchedule
    ) -> None:
        """Start shut."""
        self._node, self._names, self._schedule = node, names, schedule
        self._publisher = node.create_publisher(
            JointTrajectory, 'action_chunks', QoSProfile(depth=5)
        )
        self._lock = threading.Lock()
        self.is_open = False
        # What inferences are begun under now.
        self.sequence = 0
        # Whether the arms were sent rows since they were last told to forget them.
        self.has_sent = False
        self.dropped = 0
        self._delays = LatencyTracker()
        # 95th percentile of the s from a chunk's images to its way out, None while unknown.
        self.delay: float | None = None

    def flush(self, now: float, checkpoint: str) -> None:
        """Tell the arms to forget what they have and hold; ``now`` in s is the message's stamp.

        A chunk without rows: what the arms execute was made for something else.
        """
        nothing = np.empty((0, len(self._names)))
        flush = ActionChunk(nothing, now, 1.0, now, '', checkpoint)
        with self._lock:
            self.sequence += 1
            self.has_sent = False
            self._schedule.forget()
            self._publisher.publish(chunk_to_message(flush, self._names))

    def expire(self) -> None:
        """Whatever is under way comes too late; what the arms have stays in force."""
        with self._lock:
            self.sequence += 1

    def send(self, chunk: ActionChunk, sequence: int) -> bool:
        """Publish a chunk of an inference begun under ``sequence``; whether it went out."""
        message = chunk_to_message(chunk, self._names)
        with self._lock:
            if not self.is_open or sequence != self.sequence:
                self.dropped += 1
                return False
            self._publisher.publish(message)
            self._schedule.accept(chunk)
            self.has_sent = True
            self._delays.add(self._node.now() - chunk.observation_stamp)
            self.delay = self._delays.percentile(95)
            return True

    def forget_delays(self) -> None:
        """Chunks are made by something else from now on."""
        with self._lock:
            self._delays, self.delay = LatencyTracker(), None

    def destroy(self) -> None:
        """Remove the publisher; an inference that ends later finds the gate shut."""
        with self._lock:
            self.is_open = False
        self._node.destroy_publisher(self._publisher)
