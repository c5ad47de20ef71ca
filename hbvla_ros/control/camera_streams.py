# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The newest image of every camera, undecoded, and whether they make one observation.

Without ROS and without a clock of its own, so that live images and those of a recorded bag go
through the same lines.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.alignment import Finding, frames_problem
from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.control.streams import StreamCounters

Vector = NDArray[np.float64]
Digest = tuple[int, int]

# A joint that has moved by more than this, in rad, must show in the picture.
MUST_SHOW = 0.05
# More bytes than this are sampled; the step divides no common row length, so that the samples
# of different rows lie in different columns and colours.
_DIGEST_WHOLE, _DIGEST_STEP = 1 << 18, 17


def content_digest(data: Any) -> Digest:
    """Length and checksum of an undecoded image; a large one, which is raw, is sampled.

    About 0.1 ms for each image, so that it can be taken of images that are never used.
    """
    view = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    sample = view if len(view) <= _DIGEST_WHOLE else view[::_DIGEST_STEP]
    return len(view), zlib.crc32(sample.tobytes())


@dataclass(frozen=True, eq=False)
class Frame:
    """One undecoded image.

    Attributes:
        stamp: time of exposure in s.
        payload: whatever holds the image: a message, or its place in a bag.
    """

    stamp: float
    payload: Any


def joints_in_view(profile: RobotProfile, camera: str) -> NDArray[np.bool_]:
    """Boolean (A,): joints of which none can move without changing the camera's picture.

    A camera whose name has an arm's name in it, such as ``cam_left_wrist``, rides on that arm and
    need not see another; every other one is taken to look at all of them. Grippers are small,
    and may close on a still object: they never count.
    """
    words = camera.replace('-', '_').split('_')
    named = [arm.name for arm in profile.arms if arm.name in words]
    masks = [[not named or arm.name in named] * len(arm.joints) + [False] for arm in profile.arms]
    return np.concatenate(masks).astype(bool)


class _Picture:
    """How long a camera has shown one picture, and whether it should have changed meanwhile."""

    def __init__(self, mask: NDArray[np.bool_], digest: Digest, stamp: float) -> None:
        self.digest, self.first, self.last = digest, stamp, stamp
        self._mask = mask
        self._low = np.full(len(mask), np.inf)
        self._high = np.full(len(mask), -np.inf)
        self._moved: float | None = None

    def again(self, stamp: float, pose: Vector | None) -> None:
        """The same picture at a later stamp, and the arms' pose then."""
        self.last = stamp
        if pose is None:
            return
        self._low, self._high = np.minimum(self._low, pose), np.maximum(self._high, pose)
        if self._moved is None and ((self._high - self._low)[self._mask] > MUST_SHOW).any():
            self._moved = stamp

    @property
    def overdue(self) -> float:
        """Seconds for which it should have changed and has not; negative while it need not."""
        return -1.0 if self._moved is None else self.last - self._moved


class CameraStreams:
    """Keeps the newest image of every camera; times are in s on the commands' clock.

    A camera counts as **frozen** while it sends one and the same content under new stamps and
    should show another picture: a joint in its view (:func:`joints_in_view`) moved by more than
    :data:`MUST_SHOW` since that content first came, and that was ``frozen_timeout`` ago. Equal
    pictures alone prove nothing: those of a simulated scene at rest are equal to the last bit.
    """

    def __init__(self, profile: RobotProfile, cameras: Sequence[CameraProfile]) -> None:
        """Start without images."""
        self._safety = profile.safety
        self._newest: dict[str, Frame | None] = {camera.name: None for camera in cameras}
        self._views = {c.name: joints_in_view(profile, c.name) for c in cameras}
        self._pictures: dict[str, _Picture] = {}
        self._used: dict[str, Frame] = {}
        self.counters = {camera.name: StreamCounters() for camera in cameras}

    def add(
        self, name: str, stamp: float, digest: Digest, pose: Vector | None, payload: Any
    ) -> bool:
        """Take an image.

        Args:
            name: the camera.
            stamp: time of exposure; one that is not after the last image's is refused, unless the
                camera's clock went back by more than an image may be old.
            digest: of the content, see :func:`content_digest`.
            pose: float64 (A,) at that time, None where it is not known.
            payload: kept with the image.

        Returns:
            Whether it is the camera's newest now.
        """
        counters, newest = self.counters[name], self._newest[name]
        counters.received += 1
        if newest is not None:
            if newest.stamp - self._safety.image_timeout <= stamp <= newest.stamp:
                counters.out_of_order += 1
                return False
            if self._used.get(name) is not newest:
                counters.replaced += 1
        self._newest[name] = Frame(stamp, payload)
        picture = self._pictures.get(name)
        if picture is None or picture.digest != digest or stamp < picture.last:
            picture = self._pictures[name] = _Picture(self._views[name], digest, stamp)
        picture.again(stamp, pose)
        counters.frozen += self._is_frozen(picture)
        return True

    def _is_frozen(self, picture: _Picture) -> bool:
        return picture.overdue >= self._safety.frozen_timeout

    @property
    def frozen(self) -> dict[str, float]:
        """Cameras that count as frozen, with the seconds their picture has been the same."""
        return {
            name: picture.last - picture.first
            for name, picture in self._pictures.items()
            if self._is_frozen(picture)
        }

    def ages(self, now: float) -> dict[str, float]:
        """Age of every camera's newest image at ``now``, infinite before the first."""
        return {
            name: float('inf') if frame is None else now - frame.stamp
            for name, frame in self._newest.items()
        }

    def lost(self, now: float) -> str:
        """Why the newest images tell nothing of the present, empty if each of them does.

        Unlike those of :meth:`observation` it does not pass by itself when the other cameras'
        images arrive.
        """
        finding = self._finding(now)
        if finding.text and finding.counter != 'skewed':
            return finding.text
        for name, seconds in self.frozen.items():
            return f'{name} is frozen: the same image for {seconds:.1f} s while the arms moved'
        return ''

    def observation(self, now: float) -> tuple[dict[str, Frame], str]:
        """The newest images if they make an observation at ``now``.

        Returns:
            The images by camera and an empty text, or none and what is wrong.
        """
        finding = self._finding(now)
        for name in finding.cameras:
            self.counters[name].count_once(finding.counter, self._newest[name])
        problem = self.lost(now) or finding.text
        if problem:
            return {}, problem
        return {name: frame for name, frame in self._newest.items() if frame is not None}, ''

    def _finding(self, now: float) -> Finding:
        stamps = {name: frame.stamp if frame else None for name, frame in self._newest.items()}
        return frames_problem(stamps, now, self._safety)

    def use(self, frames: dict[str, Frame]) -> None:
        """An observation is made of these images."""
        for name, frame in frames.items():
            self.counters[name].count_once('used', frame)
            self._used[name] = frame

    def clear(self) -> None:
        """Forget all images; the counters stay."""
        self._newest = dict.fromkeys(self._newest)
        self._pictures.clear()
        self._used.clear()
