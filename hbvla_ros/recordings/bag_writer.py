# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Writes a rosbag2 bag (MCAP) with the topics and message types of a robot profile.

The messages are those that the nodes exchange: what a driver, a camera and an operator publish,
what ``policy_node`` answers, and what ``arm_node`` makes of it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.recordings.message_types import message_types

CHUNK_TOPIC, INSTRUCTION_TOPIC, CLOCK_TOPIC = '/action_chunks', '/instruction', '/clock'
_NANO = 1_000_000_000
_FOREVER = QosTime(0, 0)
# Replayed with it, a node that starts late hears the instruction as it does from a running graph.
_LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False,
)  # fmt: skip


class BagWriter:
    """One new bag, written in a ``with`` statement. Times are in s, poses as in a profile.

    A pose is joints in rad and grippers as ratios, in the order of the profile's action. ``time``
    is what a message is stamped with and, without a ``delay``, when it is recorded.
    """

    def __init__(self, path: Path, profile: RobotProfile) -> None:
        """Name the bag.

        Args:
            path: folder to be made.
            profile: names the topics; relative ones stand without a namespace.
        """
        self._profile = profile
        self._store = message_types()
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        """Make the folder."""
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what remains, and ``metadata.yaml``."""
        self._writer.close()

    def clock(self, time: float) -> None:
        """Simulated time, for graphs that live by it."""
        self._write(CLOCK_TOPIC, 'rosgraph_msgs/msg/Clock', time, clock=self._stamp(time))

    def instruction(self, text: str, time: float) -> None:
        """The task in words."""
        self._write(INSTRUCTION_TOPIC, 'std_msgs/msg/String', time, _LATCHED, data=text)

    def image(self, camera: str, jpeg: bytes, time: float, delay: float = 0.0) -> None:
        """A camera's JPEG file, byte for byte, on its topic of compressed images."""
        self._write(
            self._camera_topic(camera),
            'sensor_msgs/msg/CompressedImage',
            time + delay,
            header=self._header(time, camera),
            format='rgb8; jpeg compressed bgr8',
            data=np.frombuffer(jpeg, dtype=np.uint8),
        )

    def raw_image(
        self, camera: str, image: NDArray[np.uint8], time: float, delay: float = 0.0
    ) -> None:
        """An RGB image (H, W, 3) on a camera's topic of raw images."""
        height, width, _ = image.shape
        self._write(
            self._camera_topic(camera),
            'sensor_msgs/msg/Image',
            time + delay,
            header=self._header(time, camera),
            height=height,
            width=width,
            encoding='rgb8',
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(image).reshape(-1),
        )

    def joint_states(self, pose: NDArray[np.float64], time: float, delay: float = 0.0) -> None:
        """A measured pose, one message a topic, grippers in the driver's unit."""
        topics: dict[str, tuple[list[str], list[float]]] = {}
        for arm, part in zip(self._profile.arms, self._profile.split(pose), strict=True):
            names, values = topics.setdefault(arm.state_topic, ([], []))
            names += arm.names
            values += [*part[:-1], float(arm.observed.from_ratio(part[-1]))]
        for topic, (names, values) in topics.items():
            self._joints(topic, names, np.array(values), time, delay)

    def commands(self, pose: NDArray[np.float64], time: float) -> None:
        """A commanded pose as the adapters of arms and grippers send it.

        The goal of a gripper action is left out: bags hold topics, and actions have none of theirs.
        """
        for arm, part in zip(self._profile.arms, self._profile.split(pose), strict=True):
            values = np.append(part[:-1], arm.command.from_ratio(part[-1]))
            if arm.gripper_adapter == 'arm':
                self._command(arm, arm.names, values, time)
                continue
            self._command(arm, arm.joints, values[:-1], time)
            if arm.gripper_adapter == 'interbotix_single':
                self._write(
                    arm.gripper_command_topic, 'interbotix_xs_msgs/msg/JointSingleCommand', time,
                    name=arm.gripper_command_name, cmd=float(values[-1]),
                )  # fmt: skip

    def _command(
        self, arm: ArmProfile, names: Sequence[str], values: NDArray[np.float64], time: float
    ) -> None:
        """One message on an arm's command topic, numbers in the driver's units."""
        if arm.adapter == 'joint_state':
            self._joints(arm.command_topic, names, values, time, 0.0)
        elif arm.adapter == 'joint_trajectory':
            self._trajectory(arm.command_topic, names, values[None], 1.0, '', time)
        elif arm.adapter == 'interbotix':
            self._write(
                arm.command_topic, 'interbotix_xs_msgs/msg/JointGroupCommand', time,
                name=arm.group, cmd=values.astype(np.float32),
            )  # fmt: skip
        else:
            layout = self._make('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
            self._write(
                arm.command_topic, 'std_msgs/msg/Float64MultiArray', time, layout=layout,
                data=values,
            )  # fmt: skip

    def chunk(self, rows: ArrayLike, step: float, source: str, time: float) -> None:
        """A chunk of commanded poses (K, A), row 0 due at ``time`` and one every ``step`` s.

        Args:
            rows: poses.
            step: between two rows.
            source: who computed it, where a policy's chunk names its checkpoint.
            time: of the observation it answers.
        """
        values = np.asarray(rows, dtype=np.float64)
        names = self._profile.action_names
        self._trajectory(CHUNK_TOPIC, names, values, step, source, time)

    def _trajectory(
        self,
        topic: str,
        names: Sequence[str],
        rows: NDArray[np.float64],
        step: float,
        frame: str,
        time: float,
    ) -> None:
        """A trajectory of positions, its first row due at the stamp."""
        points = [
            self._make(
                'trajectory_msgs/msg/JointTrajectoryPoint',
                positions=row,
                velocities=np.zeros(0),
                accelerations=np.zeros(0),
                effort=np.zeros(0),
                time_from_start=self._make(
                    'builtin_interfaces/msg/Duration', **_parts(index * step)
                ),
            )
            for index, row in enumerate(rows)
        ]
        self._write(
            topic,
            'trajectory_msgs/msg/JointTrajectory',
            time,
            header=self._header(time, frame),
            joint_names=list(names),
            points=points,
        )

    def _joints(
        self,
        topic: str,
        names: Sequence[str],
        values: NDArray[np.float64],
        time: float,
        delay: float,
    ) -> None:
        self._write(
            topic,
            'sensor_msgs/msg/JointState',
            time + delay,
            header=self._header(time, ''),
            name=list(names),
            position=values,
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )

    def _camera_topic(self, camera: str) -> str:
        return next(one.topic for one in self._profile.cameras if one.name == camera)

    def _write(self, topic: str, kind: str, time: float, *qualities: Qos, **fields: Any) -> None:
        """Record a message at a time in s; a topic is announced with its first one."""
        topic = topic if topic.startswith('/') else f'/{topic}'
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=qualities
            )
        data = self._store.serialize_cdr(self._make(kind, **fields), kind)
        self._writer.write(self._connections[topic], round(time * _NANO), data)

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def _header(self, time: float, frame: str) -> Any:
        return self._make('std_msgs/msg/Header', stamp=self._stamp(time), frame_id=frame)

    def _stamp(self, time: float) -> Any:
        return self._make('builtin_interfaces/msg/Time', **_parts(time))


@contextlib.contextmanager
def whole_bag(bag: Path) -> Iterator[Path]:
    """A place to write a bag to, which takes its name when it is complete, or leaves nothing.

    Raises:
        OSError: the folder takes no files.
    """
    place = Path(tempfile.mkdtemp(prefix='.bag-', dir=bag.parent))
    try:
        # Its own name from the start: the bag's file is called like its folder.
        yield place / bag.name
        (place / bag.name).rename(bag)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _parts(seconds: float) -> dict[str, int]:
    whole, rest = divmod(round(seconds * _NANO), _NANO)
    return {'sec': whole, 'nanosec': rest}
