# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""LIBERO's demonstrations: ``TASK_demo.hdf5``, all demonstrations of one task in a file.

Both LIBERO's own files (128 pixels) and those that OpenVLA makes of them (256 pixels, without idle
steps) have frames as the simulator renders them, upside down; a policy's platform turns them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.hdf5_file import Hdf5File
from hbvla_ros.recordings.recording import Given, Needs, check_width, digest_of

# The name of a camera in the simulator, which the platform uses, and in the files.
_CAMERAS = {'agentview_image': 'agentview_rgb', 'robot0_eye_in_hand_image': 'eye_in_hand_rgb'}
# Position in m, axis times angle in rad, the two finger joints in m.
_POSE = ('ee_pos', 'ee_ori', 'gripper_states')
_ENDING = '_demo'


class LiberoFile:
    """The file that the demonstrations of one task share; open only while it is read."""

    def __init__(self, path: Path, needs: Needs, given: Given | None = None) -> None:
        """Check the content.

        Raises:
            HbvlaError: not readable, no demonstrations, a camera LIBERO has not, wrong width.
        """
        self.path, self.needs = path, needs
        self._hdf5 = Hdf5File(path, 'download it again')
        unknown = [camera for camera in needs.cameras if camera not in _CAMERAS]
        if unknown:
            raise HbvlaError(
                f'{path}: the policy needs camera {unknown[0]}, LIBERO has {", ".join(_CAMERAS)}'
            )
        try:
            lengths = {demo: len(self._dataset(demo, _POSE[0])) for demo in self._demos()}
            #: Frames of each demonstration, in the order they were made.
            self.lengths = {demo: length for demo, length in lengths.items() if length}
            for demo in list(self.lengths)[:1]:
                sample = self.pose(demo, 0)
                check_width(path, 'position, orientation and gripper', len(sample), needs)
            self.instruction = self._task() or (given or Given()).instruction.strip()
        finally:
            self.close()
        if not self.lengths:
            raise HbvlaError(f'{path}: no demonstration in /data; download it again')
        if not self.instruction:
            raise HbvlaError(f'{path}: does not say its task; give it with --instruction')

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over name and bytes of the file."""
        return digest_of([self.path])

    def close(self) -> None:
        """Close the file; it is opened again when a frame is asked for."""
        self._hdf5.close()

    def pose(self, demo: str, frame: int) -> NDArray[np.float64]:
        """Proprioception (8,) of a frame.

        Raises:
            HbvlaError: it is damaged.
        """
        parts = [self._row(demo, key, frame) for key in _POSE]
        return np.concatenate(parts).astype(np.float64)

    def image(self, demo: str, camera: str, frame: int) -> NDArray[np.uint8]:
        """RGB frame (H, W, 3) of a camera, as the simulator rendered it.

        Raises:
            HbvlaError: it is damaged.
        """
        image = self._row(demo, _CAMERAS[camera], frame)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise HbvlaError(
                f'{self.path}: frame {frame} of {demo}, {_CAMERAS[camera]}, is no RGB image'
            )
        return image

    def _demos(self) -> list[str]:
        group = self._hdf5.open().get('data')
        found = [name for name in group or () if re.fullmatch(r'demo_\d+', name)]
        return sorted(found, key=lambda name: int(name.partition('_')[2]))

    def _dataset(self, demo: str, key: str) -> h5py.Dataset:
        found = self._hdf5.open().get(f'data/{demo}/obs/{key}')
        if not isinstance(found, h5py.Dataset):
            raise HbvlaError(
                f'{self.path}: no /data/{demo}/obs/{key}; LIBERO policies take files of LIBERO'
            )
        return found

    def _row(self, demo: str, key: str, frame: int) -> NDArray[Any]:
        try:
            return np.asarray(self._dataset(demo, key)[frame])
        except (OSError, ValueError, IndexError) as error:
            raise HbvlaError(
                f'{self.path}: frame {frame} of {demo}, {key}, is damaged; download it again'
            ) from error

    def _task(self) -> str:
        """The instruction as LIBERO takes it: from the file's name, else from its attributes."""
        if self.path.stem.endswith(_ENDING):
            name = self.path.stem.removesuffix(_ENDING)
            # LIBERO-10 and -90 put the scene in front: KITCHEN_SCENE3_turn_on_the_stove.
            return re.sub(r'^[A-Z_]+SCENE\d+_', '', name).replace('_', ' ')
        try:
            told = json.loads(self._hdf5.open()['data'].attrs['problem_info'])[
                'language_instruction'
            ]
        except (KeyError, ValueError, TypeError):
            return ''
        return str(told).strip()


class LiberoDemonstration:
    """One demonstration of a file."""

    kind = 'libero_hdf5'

    def __init__(self, file: LiberoFile, demo: str) -> None:
        """Name a demonstration of a file that was checked."""
        self._libero, self._demo = file, demo

    @property
    def path(self) -> Path:
        """The file."""
        return self._libero.path

    @property
    def name(self) -> str:
        """File name and demonstration."""
        return f'{self.path.name}:{self._demo}'

    @property
    def instruction(self) -> str:
        """The task as LIBERO words it."""
        return self._libero.instruction

    def __len__(self) -> int:
        """Number of frames."""
        return self._libero.lengths[self._demo]

    def observation(self, index: int) -> Observation:
        """One frame; the stamp counts frames, because the file has no times.

        Raises:
            HbvlaError: the frame is damaged.
        """
        cameras = self._libero.needs.cameras
        images = {camera: self._libero.image(self._demo, camera, index) for camera in cameras}
        pose = self._libero.pose(self._demo, index)
        return Observation(images, pose, self.instruction, float(index))

    def digest(self) -> str:
        """SHA-256 over that of the file and the name of the demonstration."""
        return hashlib.sha256(f'{self._libero.digest} {self._demo}'.encode()).hexdigest()

    def close(self) -> None:
        """Close the file for all of its demonstrations; it is opened again when it is needed."""
        self._libero.close()


def libero_demonstrations(
    path: Path, needs: Needs, given: Given | None = None
) -> list[LiberoDemonstration]:
    """All demonstrations of a file, at least one.

    Raises:
        HbvlaError: see :class:`LiberoFile`.
    """
    file = LiberoFile(path, needs, given)
    return [LiberoDemonstration(file, demo) for demo in file.lengths]
