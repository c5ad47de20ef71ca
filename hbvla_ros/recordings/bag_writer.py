# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Writes a rosbag2 bag (MCAP) with the topics and message types of a robot profile.

The messages are those that the nodes exchange: what a driver, a camera and an operator publish,
what ``policy_node`` answers, and what ``arm_node`` makes of it.
"""

from __future__ import annotations

import functools
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
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from hbvla_ros.control.profile import ArmProfile, RobotProfile

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

    A pose is joints in rad and grippers as ratios, in the order of the profile's action.
    """

    def __init__(self, path: Path, profile: RobotProfile) -> None:
        """Name the bag.

        Args:
            path: folder to be made.
            profile: names the topics; relative ones stand without a namespace.
        """
        self._profile = profile
        self._store = _message_types()
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

    def image(self, camera: str, jpeg: bytes, time: float) -> None:
        """A camera's JPEG file, byte for byte, on its topic of compressed images."""
        topic = next(one.topic for one in self._profile.cameras if one.name == camera)
        self._write(
            topic,
            'sensor_msgs/msg/CompressedImage',
            time,
            header=self._header(time, camera),
            format='rgb8; jpeg compressed bgr8',
            data=np.frombuffer(jpeg, dtype=np.uint8),
        )

    def joint_states(self, pose: NDArray[np.float64], time: float) -> None:
        """A measured pose, one message an arm, grippers in the driver's unit."""
        for arm, part in zip(self._profile.arms, self._profile.split(pose), strict=True):
            values = np.append(part[:-1], arm.observed.from_ratio(part[-1]))
            self._joints(arm.state_topic, arm, values, time)

    def commands(self, pose: NDArray[np.float64], time: float) -> None:
        """A commanded pose, one message an arm, as its adapter sends it."""
        for arm, part in zip(self._profile.arms, self._profile.split(pose), strict=True):
            values = np.append(part[:-1], arm.command.from_ratio(part[-1]))
            if arm.adapter == 'joint_state':
                self._joints(arm.command_topic, arm, values, time)
                continue
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
            for index, row in enumerate(np.asarray(rows, dtype=np.float64))
        ]
        self._write(
            CHUNK_TOPIC,
            'trajectory_msgs/msg/JointTrajectory',
            time,
            header=self._header(time, source),
            joint_names=list(self._profile.action_names),
            points=points,
        )

    def _joints(
        self, topic: str, arm: ArmProfile, values: NDArray[np.float64], time: float
    ) -> None:
        self._write(
            topic,
            'sensor_msgs/msg/JointState',
            time,
            header=self._header(time, ''),
            name=list(arm.names),
            position=values,
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )

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


@functools.cache
def _message_types() -> Typestore:
    """Message definitions of ROS 2 Jazzy; building them takes longer than writing a bag."""
    return get_typestore(Stores.ROS2_JAZZY)


def _parts(seconds: float) -> dict[str, int]:
    whole, rest = divmod(round(seconds * _NANO), _NANO)
    return {'sec': whole, 'nanosec': rest}
