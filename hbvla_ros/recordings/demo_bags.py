# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstration episodes as rosbag2 bags: the same data on the way that a robot's data takes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_writer import BagWriter, whole_bag
from hbvla_ros.recordings.recording import Needs
from hbvla_ros.recordings.simulator import SimulatorEpisode

# Of the first frame, in s. Not 0, which simulated time has before anybody has heard it.
START = 1.0
# Between two of these of ``/clock``, in s. Timers of a node that lives by it fire when it moves, so
# it must move after the messages of a frame as well, after those of the last one too.
TICK = 0.02
# Where a policy's chunk names its checkpoint.
SOURCE = 'expert'


def write_bags(
    episodes: Iterable[Path],
    folder: Path,
    profile: RobotProfile,
    period: float,
    step: float,
    progress: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Write each episode of ``hbvla demos`` as a bag of its name.

    A bag appears whole or not at all; one that is there already stays as it is.

    Args:
        episodes: ``episode_*.npz`` files.
        folder: made if missing.
        profile: robot whose topics the bags get.
        period: s between two frames of an episode.
        step: s between two rows of a chunk.
        progress: called with each bag, those from before included.

    Returns:
        The bags.

    Raises:
        HbvlaError: an episode that is damaged or of another robot, or a folder that takes none.
    """
    bags = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for episode in episodes:
            bag = folder / episode.stem
            if not bag.exists():
                with whole_bag(bag) as place:
                    write_bag(episode, place, profile, period, step)
            bags.append(bag)
            if progress is not None:
                progress(bag)
    except OSError as error:
        raise HbvlaError(
            f'{error.filename or folder}: cannot write it: {error.strerror}'
        ) from error
    return bags


def write_bag(episode: Path, bag: Path, profile: RobotProfile, period: float, step: float) -> None:
    """Write one episode as a bag.

    At each frame there are: joint states, the images byte for byte, the expert's chunk
    on ``/action_chunks`` and its row 0 on the command topics. All carry the frame's time, and
    ``/clock`` stands in front and goes on to the next one. What was
    commanded between two frames, with its disturbances, is not in an episode.

    Args:
        episode: ``episode_*.npz``.
        bag: folder to be made.
        profile: robot whose topics the bag gets.
        period: s between two frames.
        step: s between two rows of a chunk.

    Raises:
        HbvlaError: the episode is damaged, or not of the profile's robot.
    """
    cameras = tuple(camera.name for camera in profile.cameras)
    needs = Needs(cameras, len(profile.action_names), profile.robot)
    recording = SimulatorEpisode(episode, needs)
    poses, chunks = _arrays(episode, needs)
    with BagWriter(bag, profile) as writer:
        writer.instruction(recording.instruction, START)
        for index, (pose, chunk) in enumerate(zip(poses, chunks, strict=True)):
            now = START + index * period
            writer.clock(now)
            writer.joint_states(pose, now)
            for camera in cameras:
                writer.image(camera, recording.jpeg(camera, index), now)
            writer.chunk(chunk, step, SOURCE, now)
            writer.commands(chunk[0], now)
            for tick in range(1, round(period / TICK)):
                writer.clock(now + tick * TICK)


def _arrays(episode: Path, needs: Needs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses (T, A) and chunks (T, K, A)."""
    try:
        with np.load(episode, allow_pickle=False) as content:
            poses = np.asarray(content['proprioception'], dtype=np.float64)
            chunks = np.asarray(content['chunks'], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HbvlaError(f'{episode}: no readable chunks; record the episode again') from error
    if chunks.ndim != 3 or chunks.shape[::2] != (len(poses), needs.proprio_dim):
        raise HbvlaError(
            f'{episode}: chunks of shape {chunks.shape} for {len(poses)} frames of '
            f'{needs.proprio_dim} joints; record the episode again'
        )
    return poses, chunks
