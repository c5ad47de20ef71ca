# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The cameras' topics: the newest image of each, undecoded, matched with the arms' poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from hbvla_ros.control.aligner import Aligned, Aligner
from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.diagnostics import RateMeter
from hbvla_ros.nodes.joint_reader import JointReader

_TYPES = {'compressed': CompressedImage, 'raw': Image}


class FrameReader:
    """Subscribes to the cameras; keeps only the newest message of each.

    Depth 1, best effort: a frame that was not taken in time is worth nothing. Nothing is decoded
    here, because most frames are never used.
    """

    def __init__(
        self,
        node: Node,
        profile: RobotProfile,
        cameras: Sequence[CameraProfile],
        joints: JointReader,
        on_frame: Callable[[], None],
    ) -> None:
        """Subscribe.

        Args:
            node: on whose behalf.
            profile: oldest age, largest skew and the like.
            cameras: those to read.
            joints: the arms, whose poses belong to the images.
            on_frame: called after each frame; must be quick.
        """
        self._on_frame = on_frame
        self._node, self._joints = node, joints
        self.cameras = tuple(cameras)
        self._aligner = Aligner(profile, cameras, joints.streams)
        self.streams = self._aligner.cameras
        self.rates = {camera.name: RateMeter() for camera in cameras}
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            node.create_subscription(
                _TYPES[camera.type], camera.topic, partial(self._receive, camera), quality
            )
            for camera in cameras
        ]

    def _receive(self, camera: CameraProfile, message: CompressedImage | Image) -> None:
        stamp = to_seconds(message.header.stamp)
        self._aligner.image(camera, stamp, message.data, message)
        self.rates[camera.name].tick()
        self._on_frame()

    def lost(self) -> str:
        """Why nothing is known of the present, empty if cameras and arms are all there."""
        return self._aligner.lost(*self._joints.times())

    def observation(self, is_new: Callable[[float], bool]) -> tuple[Aligned | None, str]:
        """The observation that can be made now; payloads of its frames are the messages.

        Args:
            is_new: whether images of a reference time in s show more than was seen before.

        Returns:
            The parts and an empty text; or None and what is wrong, which is nothing where there
            is only nothing new.
        """
        return self._aligner.observation(*self._joints.times(), is_new)

    def undecodable(self, name: str) -> None:
        """A camera's image turned out not to be one."""
        self.streams.counters[name].undecodable += 1

    def clear(self) -> None:
        """Forget all frames."""
        self.streams.clear()

    def destroy(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
