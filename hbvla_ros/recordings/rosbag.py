# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings of a robot: what ``policy_node`` would have been given."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.pixels import (
    check_compressed_image,
    check_raw_image,
    compressed_to_rgb,
    pixels_of,
    raw_to_rgb,
)
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.bag_moments import MomentFinder, Place
from hbvla_ros.recordings.bag_topics import CLOCK_TOPIC, BagTopics, find_topics
from hbvla_ros.recordings.recording import Given, Needs, check_width, digest_of

_NANO = 1e-9


class BagRecording:
    """One bag: a folder with ``metadata.yaml``, or a single ``.mcap`` or ``.db3`` file."""

    kind = 'rosbag'

    def __init__(self, path: Path, needs: Needs, given: Given | None = None) -> None:
        """Read everything but the images and find the moments that make an observation.

        Raises:
            HbvlaError: not readable, empty, a topic is missing or of another type, the profile is
                for another robot, nothing that makes an observation, no instruction.
        """
        self.path, given = path, given or Given()
        profile = load_profile(path, needs, given)
        check_width(path, f'the profile {profile.name}', len(profile.action_names), needs)
        self._bag: BagFile | None = None
        with BagFile(path) as bag:
            topics = bag.topics
            if not any(topic.messages for topic in topics.values()):
                raise HbvlaError(f'{path}: the bag is empty; record it again')
            found = find_topics(path, topics, profile, needs)
            self._orders = {camera.name: camera.encoding for camera in found.cameras.values()}
            finder = MomentFinder(
                profile, list(found.cameras.values()), found.simulated, given.instruction
            )
            _feed(bag, found, finder)
        self._moments = finder.moments
        if not self._moments:
            raise HbvlaError(_nothing(path, finder.problem, found.instructions))

    @property
    def name(self) -> str:
        """Name of the folder or file."""
        return self.path.name

    @property
    def instruction(self) -> str:
        """Instruction of the first observation."""
        return self._moments[0].instruction

    def __len__(self) -> int:
        """Number of observations."""
        return len(self._moments)

    def observation(self, index: int) -> Observation:
        """One observation; the stamp is that of its reference image, in s.

        Raises:
            HbvlaError: an image cannot be decoded, naming its camera.
        """
        if self._bag is None:
            self._bag = BagFile(self.path).open()
        moment = self._moments[index]
        images = {}
        for camera, place in moment.images.items():
            try:
                message = _message_at(self._bag, place)
                images[camera] = decode_image(message, self._orders[camera])
            except HbvlaError as error:
                raise HbvlaError(
                    f'{self.path}: observation {index}, camera {camera}: {error}'
                ) from error
        return Observation(images, moment.pose, moment.instruction, moment.stamp)

    def digest(self) -> str:
        """SHA-256 over names and bytes of the bag's files."""
        return bag_digest(self.path)

    def close(self) -> None:
        """Close the bag; it is opened again when an image is asked for."""
        if self._bag is not None:
            self._bag.close()
            self._bag = None


def bag_digest(path: Path) -> str:
    """SHA-256 over names and bytes of a bag's files.

    Raises:
        HbvlaError: a file cannot be read.
    """
    if path.is_file():
        return digest_of([path])
    return digest_of(sorted(file for file in path.iterdir() if file.is_file()))


def load_profile(
    path: Path, needs: Needs, given: Given, option: str = '--calibration-profile'
) -> RobotProfile:
    """The robot profile that names the topics.

    Args:
        path: the bag, for messages.
        needs: of the policy.
        given: may name the profile.
        option: the command's option for it, for messages.

    Raises:
        HbvlaError: there is none for the policy's robot, or it is for another robot.
    """
    try:
        profile = RobotProfile.load(given.profile or needs.robot)
    except HbvlaError as error:
        if given.profile is not None:
            raise
        raise HbvlaError(
            f'{path}: the topics of a bag come from a robot profile and none is shipped for robot '
            f'{needs.robot!r}; give the path of one ({option})'
        ) from error
    if profile.robot != needs.robot:
        raise HbvlaError(
            f'{path}: the profile {profile.name} is for robot {profile.robot!r}, the policy for '
            f'{needs.robot!r}; give a profile of that robot'
        )
    return profile


def decode_image(message: Any, order: str = 'auto') -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of a raw or compressed message, as the policy node decodes it.

    Args:
        message: the image.
        order: the camera's ``encoding`` in the robot profile: `auto` believes the message.

    Raises:
        HbvlaError: data that is no image, an encoding that is not 8-bit colour or grey, or no
            OpenCV.
    """
    try:
        import cv2
        from rosbags.image import compressed_image_to_cvimage
    except ImportError as error:
        raise HbvlaError(
            'images of bags need OpenCV: install python3-opencv or opencv-python-headless'
        ) from error
    if hasattr(message, 'format'):
        check_compressed_image(message)
        try:
            image = compressed_image_to_cvimage(message)
        except (cv2.error, AssertionError) as error:
            raise HbvlaError(f'compressed image ({message.format}) cannot be decoded') from error
        return compressed_to_rgb(image, message.format, order)
    check_raw_image(message)
    return raw_to_rgb(pixels_of(message), message.encoding, order)


def _feed(bag: BagFile, found: BagTopics, finder: MomentFinder) -> None:
    """Give all messages to the finder."""
    same: Counter[tuple[str, int]] = Counter()
    for message in bag.messages(found.every):
        topic, recorded = message.topic, message.time * _NANO
        content = bag.parse(message)
        if topic in found.cameras:
            place = Place(topic, message.time, same[topic, message.time])
            same[topic, message.time] += 1
            finder.image(found.cameras[topic], content, place, recorded)
        elif topic in found.arms:
            finder.joints(found.arms[topic], content, recorded)
        elif topic in found.instructions:
            finder.instruct(content)
        elif topic == CLOCK_TOPIC:
            finder.clock(content)


def _message_at(bag: BagFile, place: Place) -> Any:
    for number, message in enumerate(bag.messages([place.topic], place.time, place.time + 1)):
        if number == place.number:
            return bag.parse(message)
    raise HbvlaError('its message is gone; the bag has changed since it was opened')


def _nothing(path: Path, problem: str, instructions: tuple[str, ...]) -> str:
    """The error of a bag without observations."""
    if problem != 'no instruction':
        return (
            f'{path}: holds nothing that makes an observation; when it ended: {problem}; record '
            'cameras and joints with right stamps, in simulation /clock as well'
        )
    where = 'has no instruction topic' if not instructions else 'never says what the task is'
    return f'{path}: {where}; give it with --instruction'
