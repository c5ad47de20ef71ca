# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The newest image of every camera, undecoded, and whether they make one observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from hbvla_ros.control.alignment import frames_problem
from hbvla_ros.control.profile import CameraProfile, SafetyProfile
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.diagnostics import RateMeter

_TYPES = {'compressed': CompressedImage, 'raw': Image}


@dataclass(frozen=True)
class Frame:
    """One undecoded image; ``stamp`` in s is when it was exposed."""

    message: CompressedImage | Image
    stamp: float


class FrameReader:
    """Subscribes to the cameras; keeps only the newest message of each.

    Depth 1, best effort: a frame that was not taken in time is worth nothing. Nothing is decoded
    here, because most frames are never used.
    """

    def __init__(
        self,
        node: Node,
        cameras: Sequence[CameraProfile],
        safety: SafetyProfile,
        on_frame: Callable[[], None],
    ) -> None:
        """Subscribe to every camera; ``on_frame`` is called after each frame and must be quick."""
        self._on_frame = on_frame
        self._node, self._safety = node, safety
        self._names = [camera.name for camera in cameras]
        self._newest: dict[str, Frame] = {}
        self.rates = {camera.name: RateMeter() for camera in cameras}
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            node.create_subscription(
                _TYPES[camera.type], camera.topic, partial(self._receive, camera), quality
            )
            for camera in cameras
        ]

    def _receive(self, camera: CameraProfile, message: CompressedImage | Image) -> None:
        stamp = to_seconds(message.header.stamp) - camera.latency
        self._newest[camera.name] = Frame(message, stamp)
        self.rates[camera.name].tick()
        self._on_frame()

    def ages(self, now: float) -> dict[str, float]:
        """Age in s of every camera's newest frame at ``now``, infinite before the first."""
        return {
            name: now - self._newest[name].stamp if name in self._newest else float('inf')
            for name in self._names
        }

    def observation(self, now: float) -> tuple[dict[str, Frame], str]:
        """The newest frames if they make an observation at ``now`` in s.

        Returns:
            The frames by camera and an empty text, or no frames and what is wrong.
        """
        newest = {name: self._newest.get(name) for name in self._names}
        stamps = {name: frame.stamp if frame else None for name, frame in newest.items()}
        problem = frames_problem(stamps, now, self._safety)
        if problem:
            return {}, problem
        return {name: frame for name, frame in newest.items() if frame}, ''

    def clear(self) -> None:
        """Forget all frames."""
        self._newest.clear()

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
