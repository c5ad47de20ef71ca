# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the arms were commanded while a bag was recorded, as one pose over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.alignment import measured_at, observed_pose
from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_file import Topic
from hbvla_ros.recordings.bag_ingest import seconds
from hbvla_ros.recordings.bag_topics import BagTopics, full_name
from hbvla_ros.recordings.pose_tracks import PoseTracks, Track

Vector = NDArray[np.float64]
# Due times and the rows (K, n) of driver's numbers due then; None is when the message arrived.
_Rows = tuple[Sequence[float | None], Vector]


@dataclass(frozen=True)
class _Reader:
    """How one topic is read: its message type and the rows in one of its messages."""

    type: str
    rows: Callable[[Any], _Rows]
    track: Track
    arm: ArmProfile
    has_gripper: bool


class RecordedCommands:
    """Collects the commands of all arms from the messages of a bag.

    Attributes:
        poses: what was commanded.

    Args:
        path: the bag, for messages.
        there: its topics.
        found: which of them are the robot's.
        profile: the robot.

    Raises:
        HbvlaError: an arm's command topic is missing or of another type.
    """

    def __init__(
        self, path: Path, there: Mapping[str, Topic], found: BagTopics, profile: RobotProfile
    ) -> None:
        """Find the topics. A gripper that is driven by an action leaves none in a bag."""
        self._path = path
        self._readers: dict[str, _Reader] = {}
        first = 0
        for arm in profile.arms:
            columns = tuple(range(first, first + len(arm.names)))
            first += len(arm.names)
            for topic, reader in _readers(arm, columns):
                name = full_name(found.namespace, topic)
                _check(path, there, name, arm, reader.type)
                self._readers[name] = reader
        tracks = [reader.track for reader in self._readers.values()]
        self.poses = PoseTracks(tracks, profile.is_gripper)

    @property
    def topics(self) -> list[str]:
        """Their names in the bag."""
        return list(self._readers)

    def add(self, topic: str, content: Any, now: float) -> None:
        """Take a message that arrived at ``now`` in s, on the clock of the stamps.

        Raises:
            HbvlaError: numbers or names of another robot.
        """
        reader = self._readers[topic]
        try:
            due, rows = reader.rows(content)
        except HbvlaError as error:
            raise HbvlaError(f'{self._path}: {topic}: {error}') from error
        if not np.isfinite(rows).all():
            return  # no arm followed it
        if reader.has_gripper:
            rows = np.column_stack([rows[:, :-1], reader.arm.command.to_ratio(rows[:, -1])])
        reader.track.add([now if time is None else time for time in due], rows)


class RecordedStates:
    """Collects the measured poses instead, for bags without commands.

    Attributes:
        poses: what was measured.
    """

    def __init__(self, found: BagTopics, profile: RobotProfile) -> None:
        """Name the topics, and the robot whose they are."""
        self._found, self._arms = found, profile.arms
        ends = np.cumsum([len(arm.names) for arm in profile.arms])
        self._tracks = [
            Track(tuple(range(end - len(arm.names), end)))
            for arm, end in zip(profile.arms, ends, strict=True)
        ]
        self.poses = PoseTracks(self._tracks, profile.is_gripper)

    @property
    def topics(self) -> list[str]:
        """Their names in the bag."""
        return list(self._found.arms)

    def add(self, topic: str, content: Any, now: float) -> None:
        """Take joint states, at the time they were measured; what is refused live is left out."""
        for index in self._found.arms[topic]:
            arm = self._arms[index]
            try:
                pose = observed_pose(arm, content)
            except HbvlaError:
                continue
            time = measured_at(seconds(content.header.stamp), arm.state_latency)
            self._tracks[index].add([time], pose[None])


def _readers(arm: ArmProfile, columns: tuple[int, ...]) -> list[tuple[str, _Reader]]:
    """The topics that an arm and its gripper are commanded on, as the profile writes them."""
    has_gripper = arm.gripper_adapter == 'arm'
    names = arm.names if has_gripper else arm.joints
    kind, read = _ARM_MESSAGES[arm.adapter]
    own = columns if has_gripper else columns[:-1]
    readers = [(
        arm.command_topic,
        _Reader(kind, lambda m: read(m, names), Track(own), arm, has_gripper),
    )]  # fmt: skip
    if arm.gripper_adapter == 'interbotix_single':
        kind = 'interbotix_xs_msgs/msg/JointSingleCommand'
        single = _Reader(kind, _single, Track(columns[-1:]), arm, True)
        readers.append((arm.gripper_command_topic, single))
    return readers


def _check(path: Path, there: Mapping[str, Topic], name: str, arm: ArmProfile, kind: str) -> None:
    if name not in there or not there[name].messages:
        raise HbvlaError(
            f'{path}: no commands on {name} (arm {arm.name}); record it as well, or compare with '
            'the measured poses (--against poses) or with nothing (--against nothing)'
        )
    if there[name].type != kind:
        raise HbvlaError(
            f'{path}: topic {name} is of type {there[name].type}, adapter {arm.adapter} sends '
            f'{kind}; give the robot profile that the bag was recorded with'
        )


def _array(message: Any, names: Sequence[str]) -> _Rows:
    return [None], _sized(message.data, names)


def _group(message: Any, names: Sequence[str]) -> _Rows:
    return [None], _sized(message.cmd, names)


def _single(message: Any) -> _Rows:
    return [None], np.array([[message.cmd]], dtype=np.float64)


def _named(message: Any, names: Sequence[str]) -> _Rows:
    return [None], _ordered(message.name, [message.position], names)


def _trajectory(message: Any, names: Sequence[str]) -> _Rows:
    """Every point at the time it is due; without a stamp it starts when it arrives."""
    if not message.points:
        raise HbvlaError('trajectory without points')
    start = seconds(message.header.stamp)
    rows = _ordered(message.joint_names, [point.positions for point in message.points], names)
    if start == 0.0:
        return [None], rows[:1]
    return [start + seconds(point.time_from_start) for point in message.points], rows


def _sized(numbers: Any, names: Sequence[str]) -> Vector:
    row = np.asarray(numbers, dtype=np.float64)
    if len(row) != len(names):
        raise HbvlaError(f'{len(row)} numbers for {len(names)} joints')
    return row[None]


def _ordered(given: Sequence[str], rows: Sequence[Any], names: Sequence[str]) -> Vector:
    """Rows in the order of the profile's joints."""
    missing = [name for name in names if name not in given]
    if missing:
        raise HbvlaError(f'joint {missing[0]!r} is missing')
    order = [list(given).index(name) for name in names]
    return np.array([[row[index] for index in order] for row in rows], dtype=np.float64)


_ARM_MESSAGES: Mapping[str, tuple[str, Callable[[Any, Sequence[str]], _Rows]]] = {
    'forward_command': ('std_msgs/msg/Float64MultiArray', _array),
    'joint_state': ('sensor_msgs/msg/JointState', _named),
    'joint_trajectory': ('trajectory_msgs/msg/JointTrajectory', _trajectory),
    'interbotix': ('interbotix_xs_msgs/msg/JointGroupCommand', _group),
}
