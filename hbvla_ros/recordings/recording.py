# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What every kind of recorded episode has in common, and what a policy needs of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Needs:
    """What the policy takes.

    Attributes:
        cameras: names of its cameras.
        proprio_dim: values of its proprioception, 0 for none.
        robot: tag of its robot.
    """

    cameras: tuple[str, ...]
    proprio_dim: int
    robot: str


@dataclass(frozen=True)
class Given:
    """What a user adds where a recording does not say it.

    Attributes:
        profile: robot profile, a name or a file, that names the topics of bags; None for the
            shipped profile of the policy's robot.
        instruction: task in words for recordings without one; empty for none.
        camera_names: camera of the policy to its name in HDF5 episodes.
        colours: channel order of the images in HDF5 episodes, 'rgb' or 'bgr'.
    """

    profile: str | Path | None = None
    instruction: str = ''
    camera_names: Mapping[str, str] | None = None
    colours: str = 'rgb'


class Recording(Protocol):
    """One recorded episode; images are decoded when they are asked for."""

    @property
    def path(self) -> Path:
        """File or folder."""

    @property
    def name(self) -> str:
        """Name of the file or folder, without the folders above it."""

    @property
    def kind(self) -> str:
        """'simulator', 'aloha_hdf5', 'libero_hdf5' or 'rosbag'."""

    @property
    def instruction(self) -> str:
        """The task in words; of the first observation where it changes on the way."""

    def __len__(self) -> int:
        """Number of observations."""

    def observation(self, index: int) -> Observation:
        """One observation as the policy would have been given it.

        The stamp is in s for bags; the other kinds have no times, theirs counts observations.

        Raises:
            HbvlaError: an image is damaged.
        """

    def digest(self) -> str:
        """SHA-256 over the names and bytes of its files."""

    def close(self) -> None:
        """Let go of what is open or kept in memory; it comes back when it is asked for."""


def digest_of(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and bytes of files.

    Raises:
        HbvlaError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256()
        try:
            with path.open('rb') as stream:
                while block := stream.read(_BLOCK):
                    content.update(block)
        except OSError as error:
            raise HbvlaError(f'{path}: cannot be read ({error.strerror})') from error
        digest.update(path.name.encode())
        digest.update(content.digest())
    return digest.hexdigest()


def check_width(path: Path, what: str, width: int, needs: Needs) -> None:
    """Check the width of the proprioception.

    Raises:
        HbvlaError: it is not what the policy takes.
    """
    if needs.proprio_dim and width != needs.proprio_dim:
        raise HbvlaError(
            f'{path}: {what} has {width} values, the policy takes {needs.proprio_dim}; '
            'choose recordings of its robot'
        )
