# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Drivers and cameras of a robot that is where it was told to be, and fail when they are told to.

Nothing is simulated: arms are where the last command sent them, cameras see squares that move.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image, JointState

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.adapters import WireReader
from hbvla_ros.nodes.conversions import encode_jpeg, joint_state, raw_image, to_time
from hbvla_ros.nodes.faults import request
from hbvla_ros.nodes.parameters import Parameter, declare, read
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.recordings.fixture import Motion, Scene

NAME = 'faulty_robot'
TABLE = (
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter(
        'time_scale',
        0.0,
        'Simulated seconds a second, published on /clock; 0 lives in real time.',
        low=0.0,
        high=100.0,
    ),
)
_SIZE = (64, 48)
# Different pictures of each camera, shown one after the other again and again.
_PICTURES = 50
_FIRST_TIME = 1000.0


class FaultyRobot(Node):
    """Publishes the profile's joint states and cameras, and follows its command topics.

    Args:
        **options: passed on to rclpy's node.

    Raises:
        HbvlaError: a bad parameter or profile.
    """

    def __init__(self, **options: Any) -> None:
        """Begin at the start of the swinging policy's motion."""
        super().__init__(NAME, **options)
        declare(self, TABLE)
        values = read(self, TABLE)
        profile = self.profile = RobotProfile.load(values['robot'])
        self._scale, self._time = values['time_scale'], _FIRST_TIME
        self._faults: dict[str, Any] = {}
        self._jumped: Any = None
        self._rest = Motion(profile, 0).at(0.0)
        self._wire = WireReader(self, profile)
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._joints = [
            self.create_publisher(JointState, arm.state_topic, 5) for arm in profile.arms
        ]
        self._cameras = {
            camera.name: self.create_publisher(
                Image if camera.type == 'raw' else CompressedImage, camera.topic, best_effort
            )
            for camera in profile.cameras
        }
        self._messages = self._pictures()
        self._clock_publisher = self.create_publisher(ClockMessage, '/clock', 1)
        self._turns, self._shown = 0, dict.fromkeys(self._cameras, 0)
        every = profile.joint_state_rate / profile.cameras[0].rate
        self._turns_per_image = max(1, round(every))
        request.listen(self, self._receive)
        rate = profile.joint_state_rate * (self._scale or 1.0)
        self.create_timer(1.0 / rate, self._turn, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def start(self) -> None:
        """Nothing: drivers speak from their first moment on."""
        self.get_logger().info(f'drivers of {self.profile.robot} are running')

    def stop(self) -> None:
        """Nothing either."""

    def _pictures(self) -> dict[str, list[CompressedImage | Image]]:
        """Messages of each camera, no two of them alike."""
        random, made = np.random.default_rng(0), {}
        for index, camera in enumerate(self.profile.cameras):
            scene, messages = Scene(0, index, _SIZE), []
            for number in range(_PICTURES):
                picture = scene.at(number / camera.rate)
                # Squares are slow: the next picture must differ for certain.
                picture[:8, :8] = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                messages.append(_image(picture, camera.name, camera.type == 'raw'))
            made[camera.name] = messages
        return made

    def _receive(self, faults: dict[str, Any]) -> None:
        self._faults = faults
        jump = faults.get(request.CLOCK_BACK)
        # A request that is repeated is still the same jump.
        if jump is not None and jump != self._jumped:
            self._time -= float(jump[1])
        self._jumped = jump or self._jumped

    def _now(self) -> float:
        if self._scale:
            return self._time
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _turn(self) -> None:
        self._turns += 1
        if self._scale:
            self._time += 1.0 / self.profile.joint_state_rate
            self._clock_publisher.publish(ClockMessage(clock=to_time(self._time)))
        self._publish_joints()
        if self._turns % self._turns_per_image == 0:
            self._publish_images()

    def _publish_joints(self) -> None:
        if request.JOINTS_STOP in self._faults:
            return
        seen = self._wire.pose
        poses = self.profile.split(np.where(np.isfinite(seen), seen, self._rest))
        prefix = 'strange_' if request.WRONG_NAMES in self._faults else ''
        for arm, pose, publisher in zip(self.profile.arms, poses, self._joints, strict=True):
            raw = np.append(pose[:-1], arm.observed.from_ratio(pose[-1]))
            names = [prefix + name for name in arm.names]
            publisher.publish(joint_state(names, raw, self._now()))

    def _publish_images(self) -> None:
        stamp = to_time(self._now())
        stopped = self._faults.get(request.CAMERA_STOPS, ())
        frozen = self._faults.get(request.CAMERA_FREEZES, ())
        for name, publisher in self._cameras.items():
            if name in stopped:
                continue
            self._shown[name] += name not in frozen
            message = self._messages[name][self._shown[name] % _PICTURES]
            if name in self._faults.get(request.BAD_IMAGES, ()):
                message = _damaged(message, self._shown[name])
            message.header.stamp = stamp
            publisher.publish(message)


def _image(picture: NDArray[np.uint8], name: str, raw: bool) -> CompressedImage | Image:
    return raw_image(picture, 0.0, name) if raw else encode_jpeg(picture, 0.0, name, 90)


def _damaged(message: CompressedImage | Image, number: int) -> CompressedImage | Image:
    """An image of which some bytes are missing, in one of several ways."""
    data = message.data
    cut = [data[:0], data[: len(data) // 3], data[len(data) // 3 :]][number % 3]
    if isinstance(message, Image):
        return Image(
            header=message.header, height=message.height, width=message.width,
            encoding=message.encoding, step=message.step, data=cut,
        )  # fmt: skip
    return CompressedImage(header=message.header, format=message.format, data=cut)


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, FaultyRobot)


if __name__ == '__main__':
    main()
