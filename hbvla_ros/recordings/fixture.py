# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A small synthetic bag of any robot, for tests and for trying a replay without a recording.

Nothing is simulated: joints swing around the start pose, measurements follow the commands a
little later, and the cameras see squares that move. Streams have the rates of the profile, and
arrive as they do on a robot: later than they are stamped, by a little that varies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_writer import BagWriter, whole_bag

Vector = NDArray[np.float64]
Picture = NDArray[np.uint8]

# Time of day of the first message, s; of a simulated robot, whose time begins late enough to be
# told from none.
_START, _SIMULATED_START = 1_700_000_000.0, 1.0
# The arms are where they were commanded so long ago, s.
_LAG = 0.04
# Delays from stamp to receipt, s: least and spread.
_CAMERA_DELAY, _JOINT_DELAY = (0.008, 0.008), (0.0005, 0.001)
# Share of a joint's range and of its speed limit that the motion uses, and its widest swing to one
# side, rad, of grippers as a ratio.
_REACH, _SPEED, _WIDEST, _GRIPPER_REACH = 0.5, 0.4, 0.4, 0.45
_CLOCK_PERIOD = 0.01
_SQUARES = 4


@dataclass(frozen=True)
class FixtureOptions:
    """What is recorded.

    Attributes:
        seconds: length of the recording.
        seed: of the motion, the pictures and the delays.
        size: width and height of the pictures, pixels.
        instruction: task in words.
        simulated: whether the robot lives by ``/clock``, which is recorded then.
    """

    seconds: float = 3.0
    seed: int = 0
    size: tuple[int, int] = (64, 48)
    instruction: str = 'put the red cube into the bucket'
    simulated: bool = False


def write_fixture(bag: Path, profile: RobotProfile, options: FixtureOptions) -> int:
    """Write the bag; the same options, the same messages.

    Args:
        bag: folder to be made; it appears whole or not at all.
        profile: robot whose topics, rates, units and limits it has.
        options: what is recorded.

    Returns:
        Messages written.

    Raises:
        HbvlaError: options out of range, the folder is there already, or it cannot be made.
    """
    _check(bag, options)
    events = _events(profile, options)
    try:
        with whole_bag(bag) as place, BagWriter(place, profile) as writer:
            for _, write in events:
                write(writer)
    except OSError as error:
        raise HbvlaError(f'{bag}: cannot write it: {error.strerror or error}') from error
    return len(events)


def _check(bag: Path, options: FixtureOptions) -> None:
    if bag.exists():
        raise HbvlaError(f'{bag}: is there already; remove it or name another folder')
    if not bag.absolute().parent.is_dir():
        raise HbvlaError(f'{bag}: there is no folder {bag.absolute().parent}; make it first')
    if not 0.1 <= options.seconds <= 600.0:
        raise HbvlaError(f'--seconds {options.seconds:g}: must be 0.1 to 600')
    if not all(16 <= side <= 4096 for side in options.size):
        raise HbvlaError(f'--camera-size {options.size[0]}x{options.size[1]}: must be 16 to 4096')
    if not options.instruction.strip():
        raise HbvlaError('--instruction: is empty; say what the robot is to do')
    if options.seed < 0:
        raise HbvlaError(f'--seed {options.seed}: must not be below 0')


Event = tuple[float, Callable[[BagWriter], None]]


def _events(profile: RobotProfile, options: FixtureOptions) -> list[Event]:
    """All messages in the order of their receipt."""
    start = _SIMULATED_START if options.simulated else _START
    motion = Motion(profile, options.seed)
    # A stream of its own for each kind, so that one more camera does not change the joints.
    draws = np.random.default_rng(options.seed + 1).spawn(1 + len(profile.cameras))
    said = partial(BagWriter.instruction, text=options.instruction, time=start)
    events: list[Event] = [(start, said)]
    if options.simulated:
        for elapsed in _instants(options.seconds, 1.0 / _CLOCK_PERIOD):
            time = start + elapsed
            events.append((time, partial(BagWriter.clock, time=time)))
    for elapsed in _instants(options.seconds, profile.joint_state_rate):
        delay = _JOINT_DELAY[0] + _JOINT_DELAY[1] * draws[0].random()
        pose, time = motion.at(elapsed - _LAG), start + elapsed
        states = partial(BagWriter.joint_states, pose=pose, time=time, delay=delay)
        events.append((time + delay, states))
    for elapsed in _instants(options.seconds, profile.control_rate):
        pose, time = motion.at(elapsed), start + elapsed
        events.append((time, partial(BagWriter.commands, pose=pose, time=time)))
    for index, camera in enumerate(profile.cameras):
        events += _camera_events(camera, index, start, options, draws[1 + index])
    # By time alone: what was added first of one instant stays first.
    return sorted(events, key=lambda event: event[0])


def _camera_events(
    camera: CameraProfile,
    index: int,
    start: float,
    options: FixtureOptions,
    random: np.random.Generator,
) -> Iterator[Event]:
    scene = Scene(options.seed, index, options.size)
    for elapsed in _instants(options.seconds, camera.rate):
        delay = _CAMERA_DELAY[0] + _CAMERA_DELAY[1] * random.random()
        picture, stamp = scene.at(elapsed), start + elapsed
        write: Callable[[BagWriter], None]
        if camera.type == 'raw':
            write = partial(BagWriter.raw_image, camera=camera.name, image=picture, time=stamp,
                            delay=delay)  # fmt: skip
        else:
            data = simplejpeg.encode_jpeg(picture, 90, 'RGB', '420')
            write = partial(BagWriter.image, camera=camera.name, jpeg=data, time=stamp, delay=delay)
        yield stamp + delay, write


def _instants(seconds: float, rate: float) -> list[float]:
    """Times from 0 to before ``seconds`` at a rate."""
    return [index / rate for index in range(math.ceil(seconds * rate - 1e-9))]


class Motion:
    """Smooth commands around the start pose, inside all limits of a profile.

    Args:
        profile: start pose and limits.
        seed: of frequencies and phases.
    """

    def __init__(self, profile: RobotProfile, seed: int) -> None:
        """Draw frequencies and phases, and make each swing as wide as the limits allow."""
        random = np.random.default_rng(seed)
        width = len(profile.action_names)
        angular = 2.0 * np.pi * random.uniform(0.25, 0.75, width)  # of 0.25 to 0.75 Hz
        self._phase = random.uniform(0.0, 2.0 * np.pi, width)
        fastest = _SPEED * profile.velocity / angular
        margin = np.where(profile.is_gripper, 0.0, profile.safety.position_margin)
        inside = profile.lower + margin, profile.upper - margin
        room = np.minimum(_REACH * (inside[1] - inside[0]) / 2, _WIDEST)
        self._reach = np.minimum(np.where(profile.is_gripper, _GRIPPER_REACH, room), fastest)
        # A robot that rests at a limit swings beside it.
        lower, upper = inside[0] + self._reach, inside[1] - self._reach
        middle = np.clip(profile.start_pose, lower, upper)
        self._middle = np.where(profile.is_gripper, 0.5, middle)
        self._angular = angular

    def at(self, elapsed: float) -> Vector:
        """The pose (A,) commanded ``elapsed`` s after the start."""
        return self._middle + self._reach * np.sin(self._angular * elapsed + self._phase)


class Scene:
    """What one camera sees: a shaded ground and squares on their way.

    Args:
        seed: of the whole recording.
        camera: number of the camera; each sees something else.
        size: width and height, pixels.
    """

    def __init__(self, seed: int, camera: int, size: tuple[int, int]) -> None:
        """Draw colours, places and ways."""
        random = np.random.default_rng([seed, camera])
        width, height = size
        shade = np.linspace(0.5, 1.0, height)[:, None, None] * np.linspace(0.7, 1.0, width)[:, None]
        self._ground = (shade * random.uniform(90, 200, 3)).astype(np.uint8)
        self._colours = random.integers(0, 256, (_SQUARES, 3), dtype=np.uint8)
        self._places = random.uniform(0.0, 1.0, (_SQUARES, 2))
        self._speeds = random.uniform(-0.4, 0.4, (_SQUARES, 2))  # picture widths a second
        self._side = max(4, min(size) // 5)

    def at(self, elapsed: float) -> Picture:
        """RGB picture (H, W, 3); squares that leave come back on the other side."""
        picture = self._ground.copy()
        room = np.array(picture.shape[:2]) - self._side
        for colour, place in zip(
            self._colours, (self._places + elapsed * self._speeds) % 1.0, strict=True
        ):
            top, left = (place * room).astype(int)
            picture[top : top + self._side, left : left + self._side] = colour
        return picture
