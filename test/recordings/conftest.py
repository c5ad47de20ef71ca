# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One synthetic episode, and writers that record it in every format that is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.recordings.recording import Needs

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = ('cam_high', 'cam_left_wrist')
TASK = 'put the red cube into the bucket'
NEEDS = Needs(CAMERAS, 14, 'aloha_sim')
STORE = get_typestore(Stores.ROS2_JAZZY)
_NANO = 1_000_000_000


@dataclass(frozen=True)
class Episode:
    """What was seen: RGB images by camera (T, H, W, 3), poses (T, 14)."""

    images: dict[str, np.ndarray]
    poses: np.ndarray


@dataclass(frozen=True)
class BagStyle:
    """How an episode is recorded as a bag.

    ``start`` is the stamp of the first frame in s, ``clock`` adds /clock and records by wall
    time, ``changes`` edit each message as ``change(topic, index, message)``, which may give None
    to leave it out.
    """

    storage: StoragePlugin = StoragePlugin.MCAP
    namespace: str = ''
    raw: bool = False
    instruction: str | None = TASK
    start: float = 100.0
    period: float = 0.04
    clock: bool = False
    version: int = 9
    cameras: tuple[str, ...] = CAMERAS
    change: Callable[[str, int, Any], Any] = field(default=lambda topic, index, message: message)


def make_episode(frames: int = 6) -> Episode:
    random = np.random.default_rng(3)
    blocks = random.integers(0, 256, (len(CAMERAS), frames, 6, 8, 3), dtype=np.uint8)
    images = blocks.repeat(8, axis=2).repeat(8, axis=3)
    poses = random.uniform(-1, 1, (frames, 14))
    poses[:, [6, 13]] = random.uniform(0, 1, (frames, 2))
    return Episode(dict(zip(CAMERAS, images, strict=True)), poses)


@pytest.fixture
def episode() -> Episode:
    return make_episode()


def jpeg(image: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)


def write_npz(path: Path, episode: Episode) -> Path:
    arrays: dict[str, Any] = {
        'proprioception': episode.poses.astype(np.float32),
        'instruction': np.array(TASK),
    }
    for camera, images in episode.images.items():
        files = [jpeg(image) for image in images]
        arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(files), np.uint8)
        arrays[f'offset_{camera}'] = np.cumsum([0, *map(len, files)])
    np.savez(path, **arrays)
    return path


def write_hdf5(path: Path, episode: Episode, compress: bool = False, text: Any = TASK) -> Path:
    with h5py.File(path, 'w') as file:
        file.attrs['sim'], file.attrs['compress'] = False, compress
        if text is not None:
            file.attrs['language_instruction'] = text
        file['observations/qpos'] = episode.poses
        file['base_action'] = np.zeros((len(episode.poses), 2))
        lengths = []
        for camera, images in episode.images.items():
            if not compress:
                file[f'observations/images/{camera}'] = images
                continue
            # What OpenCV's encoder makes of an RGB array that it takes for BGR.
            files = [simplejpeg.encode_jpeg(i.copy(), 95, colorspace='BGR') for i in images]
            lengths.append([len(one) for one in files])
            widest = max(map(len, files)) + 7
            padded = [np.frombuffer(one.ljust(widest, b'\0'), np.uint8) for one in files]
            file[f'observations/images/{camera}'] = np.stack(padded)
        if compress:
            file['compress_len'] = np.array(lengths)
    return path


def stamp(seconds: float) -> Any:
    whole, rest = divmod(round(seconds * _NANO), _NANO)
    return STORE.types['builtin_interfaces/msg/Time'](sec=whole, nanosec=rest)


def header(seconds: float) -> Any:
    return STORE.types['std_msgs/msg/Header'](stamp=stamp(seconds), frame_id='')


def image_message(image: np.ndarray, seconds: float, raw: bool) -> Any:
    if not raw:
        data = np.frombuffer(jpeg(image), np.uint8)
        make = STORE.types['sensor_msgs/msg/CompressedImage']
        return make(header=header(seconds), format='rgb8; jpeg compressed bgr8', data=data)
    # Rows are padded and the colours are in the other order, as some drivers do.
    rows = image[..., ::-1].reshape(len(image), -1)
    rows = np.pad(rows, ((0, 0), (0, 5)), constant_values=77)
    return STORE.types['sensor_msgs/msg/Image'](
        header=header(seconds), height=len(image), width=image.shape[1], encoding='bgr8',
        is_bigendian=0, step=rows.shape[1], data=np.ascontiguousarray(rows).reshape(-1),
    )  # fmt: skip


def joint_message(arm: int, pose: np.ndarray, seconds: float) -> Any:
    """Joint states in another order than the profile's, with a finger more, in driver's units."""
    profile = PROFILE.arms[arm]
    values = np.append(pose[:-1], profile.observed.from_ratio(pose[-1]))
    named = [('finger', 9.0), *reversed(list(zip(profile.names, values, strict=True)))]
    return STORE.types['sensor_msgs/msg/JointState'](
        header=header(seconds), name=[name for name, _ in named],
        position=np.array([float(value) for _, value in named]),
        velocity=np.zeros(0), effort=np.zeros(0),
    )  # fmt: skip


def write_bag(path: Path, episode: Episode, style: BagStyle | None = None) -> Path:
    """Record an episode: at each step joints and images of one stamp, joints in between too."""
    style = style or BagStyle()
    events: list[tuple[float, str, str, int, Any]] = []
    text, kinds = 'std_msgs/msg/String', {False: 'CompressedImage', True: 'Image'}
    if style.instruction is not None:
        told = STORE.types[text](data=style.instruction)
        events.append((style.start - 1.0, f'{style.namespace}/instruction', text, 0, told))
    for index, pose in enumerate(episode.poses):
        now = style.start + index * style.period
        if style.clock:
            kind = 'rosgraph_msgs/msg/Clock'
            events.append((now, '/clock', kind, index, STORE.types[kind](clock=stamp(now))))
        for arm, part in enumerate(PROFILE.split(pose)):
            topic = f'{style.namespace}/{PROFILE.arms[arm].state_topic}'
            kind = 'sensor_msgs/msg/JointState'
            events.append((now, topic, kind, index, joint_message(arm, part, now)))
            later = now + 0.5 * style.period
            events.append((later, topic, kind, -1, joint_message(arm, part + 0.3, later)))
        for camera in style.cameras:
            profile = next(one for one in PROFILE.cameras if one.name == camera)
            kind = f'sensor_msgs/msg/{kinds[style.raw]}'
            message = image_message(episode.images[camera][index], now, style.raw)
            topic = f'{style.namespace}/{profile.topic}'
            events.append((now + 0.003, topic, kind, index, message))
    events.sort(key=lambda event: event[0])
    delay = 1.7e9 if style.clock else 0.0
    with Writer(path, version=style.version, storage_plugin=style.storage) as writer:
        connections: dict[str, Any] = {}
        for now, topic, kind, index, message in events:
            message = style.change(topic, index, message)
            if message is None:
                continue
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            data = STORE.serialize_cdr(message, kind)
            writer.write(connections[topic], round((now + delay) * _NANO), data)
    return path


def bag(path: Path, episode: Episode, **style: Any) -> Path:
    return write_bag(path, episode, replace(BagStyle(), **style))


@pytest.fixture
def record() -> SimpleNamespace:
    """Writers by format, and what they write."""
    return SimpleNamespace(
        npz=write_npz, hdf5=write_hdf5, bag=bag, episode=make_episode, image=image_message,
        store=STORE, needs=NEEDS, task=TASK, mcap=StoragePlugin.MCAP, sqlite=StoragePlugin.SQLITE3,
    )  # fmt: skip
