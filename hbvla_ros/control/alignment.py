# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which images and which pose make one observation: the rules, for live topics and for bags.

Images must be fresh and close together; the reference is the oldest of them; the pose is the one
measured nearest to it. Both the policy node and the reader of recorded bags go by this module, so
that a bag gives what the robot saw.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import ArmProfile, RobotProfile, SafetyProfile
from hbvla_ros.errors import HbvlaError

Vector = NDArray[np.float64]

# Samples kept at least; a fast driver's reach back as far as an image may be old.
_HISTORY = 100


class Sample(Protocol):
    """One measured pose part of an arm; ``stamp`` and ``received`` in s.

    ``received`` is on a clock that never goes back, ``node_time`` the time of the commands'
    clock at the same instant.
    """

    @property
    def stamp(self) -> float:
        """When it was measured."""

    @property
    def received(self) -> float:
        """When it arrived."""

    @property
    def node_time(self) -> float:
        """The commands' clock when it arrived."""

    @property
    def pose(self) -> Vector:
        """Joints in rad and the gripper's ratio."""


AnySample = TypeVar('AnySample', bound=Sample)


class Finding(NamedTuple):
    """What keeps images from being one observation.

    Attributes:
        text: in words, empty if nothing does.
        counter: name in :class:`~hbvla_ros.control.streams.StreamCounters`, empty for none.
        cameras: whose images are to blame.
    """

    text: str
    counter: str = ''
    cameras: tuple[str, ...] = ()


def frames_problem(
    stamps: Mapping[str, float | None], now: float, safety: SafetyProfile
) -> Finding:
    """What keeps the newest frames from being one observation.

    Args:
        stamps: camera to the exposure time in s of its newest frame, None before the first.
        now: present time in s, on the same clock.
        safety: oldest age and largest skew.
    """
    missing = [name for name, stamp in stamps.items() if stamp is None]
    if missing:
        return Finding(f'no image from {missing[0]}')
    known = {name: stamp for name, stamp in stamps.items() if stamp is not None}
    # A stamp ahead of the clock is as wrong as an old one.
    old = [name for name, stamp in known.items() if abs(now - stamp) > safety.image_timeout]
    if old:
        stamp = known[old[0]]
        text = f'image from {old[0]} is {now - stamp:.3f} s old'
        if stamp == 0.0:
            text = f'image from {old[0]} has no stamp: the driver must fill in header.stamp'
        return Finding(text, 'too_old', tuple(old))
    newest = max(known.values())
    behind = [name for name, stamp in known.items() if newest - stamp > safety.image_skew]
    if behind:
        text = f'images are {newest - min(known.values()):.3f} s apart'
        return Finding(text, 'skewed', tuple(behind))
    return Finding('')


def reference_stamp(stamps: Iterable[float]) -> float:
    """Time in s an observation is dated: its oldest image, so that no row is dated too late."""
    return min(stamps)


def measured_at(stamp: float, latency: float) -> float:
    """When something was measured: its stamp less the latency of its stream, both in s.

    A stamp of zero says that there is none, whatever the latency.
    """
    return stamp - latency if stamp != 0.0 else 0.0


def pose_history(profile: RobotProfile) -> int:
    """How many samples of an arm are kept."""
    reach = 2.0 * profile.safety.image_timeout * profile.joint_state_rate
    return max(_HISTORY, round(reach))


def add_sample(samples: deque[AnySample], sample: AnySample) -> None:
    """Append to an arm's samples, forgetting those of a clock that has gone back since."""
    if samples and sample.stamp < samples[-1].stamp:
        # Older poses would now answer for the wrong time.
        samples.clear()
    samples.append(sample)


def pose_tolerance(profile: RobotProfile) -> float:
    """Seconds a pose may lie from its image; a driver that keeps its rate has one this near."""
    return profile.safety.image_skew + 1.0 / profile.joint_state_rate


def sample_age(sample: Sample, received_now: float, node_now: float, simulated: bool) -> float:
    """Age of a sample in s.

    On a robot this is time since it arrived and nothing else. In simulated time a slow simulator
    sends seldom, so there the smaller of real and simulated age counts.
    """
    age = received_now - sample.received
    if not simulated:
        return age
    elapsed = node_now - sample.node_time
    # Below zero the clock went back and says nothing about the sample.
    return min(age, elapsed) if elapsed >= 0.0 else age


def pose_at(
    topics: Sequence[str], samples: Sequence[Sequence[Sample]], stamp: float, tolerance: float
) -> tuple[Vector | None, str]:
    """The pose measured nearest to an image's ``stamp`` in s, if it is near enough.

    Args:
        topics: of each arm, for messages.
        samples: of each arm, what was heard of it.
        stamp: time of the reference image in s.
        tolerance: seconds it may lie away.

    Returns:
        The pose (A,) and an empty text, or None and what is wrong.
    """
    if not all(samples):
        return None, 'no joint states yet'
    poses = []
    for topic, heard in zip(topics, samples, strict=True):
        nearest = min(heard, key=lambda sample: abs(sample.stamp - stamp))
        if nearest.stamp == 0.0:
            return None, f'{topic} has no stamps: the driver must fill in header.stamp'
        apart = nearest.stamp - stamp
        if abs(apart) > tolerance:
            return None, (
                f'{topic} is stamped {abs(apart):.3f} s {"after" if apart > 0 else "before"} '
                f'the image, more than {tolerance:.3f} s: check the clocks of both drivers'
            )
        poses.append(nearest.pose)
    return np.concatenate(poses), ''


def observed_pose(arm: ArmProfile, message: Any) -> Vector:
    """Pose part (n + 1,) of an arm's sensor_msgs/JointState, by name and not by position.

    Raises:
        HbvlaError: a joint is missing or a position is not finite.
    """
    positions = dict(zip(message.name, message.position, strict=False))
    missing = [name for name in arm.names if name not in positions]
    if missing:
        raise HbvlaError(f'{arm.state_topic}: joint {missing[0]!r} is missing')
    values = np.array([positions[name] for name in arm.names], dtype=np.float64)
    if not np.isfinite(values).all():
        raise HbvlaError(f'{arm.state_topic}: position is not finite')
    return np.append(values[:-1], arm.observed.to_ratio(values[-1]))
