# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Episodes of ACT, ALOHA and Mobile ALOHA: ``episode_*.hdf5``.

Images lie in ``/observations/images/CAMERA``, raw or as JPEG files padded with zeros to one
length; joints and grippers in ``/observations/qpos``, in the units they were recorded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.hdf5_file import Hdf5File
from hbvla_ros.recordings.recording import Given, Needs, check_width, digest_of

_IMAGES, _JOINTS = 'observations/images', 'observations/qpos'
_INSTRUCTIONS = (
    'language_instruction',
    'language_raw',
    'instruction',
    'task_description',
    'task',
    'lang',
    'prompt',
)
# Names of the same camera in ALOHA data sets.
_ALIASES = {
    'cam_high': ('top', 'front', 'cam_front'),
    'cam_low': ('low', 'bottom'),
    'cam_left_wrist': ('left_wrist', 'wrist_left'),
    'cam_right_wrist': ('right_wrist', 'wrist_right'),
}


class AlohaEpisode:
    """One HDF5 episode; open only between a first look at it and :meth:`close`."""

    kind = 'aloha_hdf5'

    def __init__(self, path: Path, needs: Needs, given: Given | None = None) -> None:
        """Check the content; images are read when they are asked for.

        Raises:
            HbvlaError: not readable, a camera is missing, wrong width, no instruction.
        """
        self.path, given = path, given or Given()
        if given.colours not in ('rgb', 'bgr'):
            raise HbvlaError(f'channel order {given.colours!r}: must be rgb or bgr')
        self._swap = given.colours == 'bgr'
        self._hdf5 = Hdf5File(path, 'record the episode again')
        try:
            self._read(needs, given)
        finally:
            self.close()

    def _read(self, needs: Needs, given: Given) -> None:
        joints = self._dataset(_JOINTS)
        if joints.ndim != 2:
            raise HbvlaError(f'{self.path}: /{_JOINTS} has shape {joints.shape}, not (frames, 14)')
        check_width(self.path, f'/{_JOINTS}', joints.shape[1], needs)
        try:
            self._joints = np.asarray(joints[()], dtype=np.float64)
        except (OSError, ValueError) as error:
            raise HbvlaError(f'{self.path}: /{_JOINTS} is damaged; record it again') from error
        self._cameras = {
            camera: self._camera(camera, given.camera_names or {}) for camera in needs.cameras
        }
        for name in self._cameras.values():
            images = self._dataset(f'{_IMAGES}/{name}')
            if images.ndim not in (1, 2, 4) or len(images) != len(self._joints):
                raise HbvlaError(
                    f'{self.path}: /{_IMAGES}/{name} has shape {images.shape}, /{_JOINTS} has '
                    f'{len(self._joints)} frames; record the episode again'
                )
        self._instruction = self._recorded_instruction() or given.instruction.strip()
        if not self._instruction:
            raise HbvlaError(
                f'{self.path}: does not say its task (no {_INSTRUCTIONS[0]}); '
                'give it with --instruction'
            )

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @property
    def instruction(self) -> str:
        """The recorded task, or the one that was given."""
        return self._instruction

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._joints)

    def observation(self, index: int) -> Observation:
        """One frame; the stamp counts frames, because the file has no times.

        Raises:
            HbvlaError: an image is damaged.
        """
        images = {camera: self._image(name, index) for camera, name in self._cameras.items()}
        return Observation(images, self._joints[index], self._instruction, float(index))

    def digest(self) -> str:
        """SHA-256 over name and bytes of the file."""
        return digest_of([self.path])

    def close(self) -> None:
        """Close the file; it is opened again when an image is asked for."""
        self._hdf5.close()

    def _dataset(self, key: str) -> h5py.Dataset:
        found = self._find(key)
        if not isinstance(found, h5py.Dataset):
            raise HbvlaError(
                f'{self.path}: no /{key}; an ACT or ALOHA episode has /{_JOINTS} and /{_IMAGES}'
            )
        return found

    def _find(self, key: str) -> Any:
        try:
            return self._hdf5.open().get(key)
        except (OSError, KeyError, RuntimeError) as error:
            raise HbvlaError(f'{self.path}: /{key} is damaged; record the episode again') from error

    def _camera(self, camera: str, names: Mapping[str, str]) -> str:
        """Name a camera has in the file."""
        group = self._find(_IMAGES)
        there = list(group) if isinstance(group, h5py.Group) else []
        tried = (names[camera],) if camera in names else (camera, *_ALIASES.get(camera, ()))
        found = [name for name in tried if name in there]
        if not found:
            raise HbvlaError(
                f'{self.path}: no camera {tried[0]} in /{_IMAGES}, '
                f'there are {", ".join(there) or "none"}; choose recordings with the cameras of '
                'the policy'
            )
        return found[0]

    def _recorded_instruction(self) -> str:
        holders = [self._hdf5.open(), self._find('observations')]
        try:
            for key in _INSTRUCTIONS:
                for holder in holders:
                    for value in (holder.attrs.get(key), holder.get(key)):
                        text = _text(value)
                        if text:
                            return text
        except (OSError, KeyError, RuntimeError) as error:
            raise HbvlaError(
                f'{self.path}: its texts are damaged; record the episode again'
            ) from error
        return ''

    def _image(self, name: str, index: int) -> NDArray[np.uint8]:
        try:
            data = np.asarray(self._dataset(f'{_IMAGES}/{name}')[index])
        except OSError as error:
            raise self._damaged(name, index) from error
        if data.ndim == 3:
            if data.dtype != np.uint8 or data.shape[2] != 3:
                raise self._damaged(name, index)
            image = data
        else:
            # The padding is cut off: /compress_len, which has the lengths, does not say its order
            # of the cameras, and no JPEG ends with a zero.
            content = data.tobytes().rstrip(b'\0')
            try:
                # Recorders hand their arrays to OpenCV, which takes them for BGR, and readers get
                # back what was handed over.
                image = np.asarray(simplejpeg.decode_jpeg(content, colorspace='BGR'))
            except ValueError as error:
                raise self._damaged(name, index) from error
        return np.ascontiguousarray(image[..., ::-1] if self._swap else image)

    def _damaged(self, name: str, index: int) -> HbvlaError:
        return HbvlaError(
            f'{self.path}: frame {index} of {name} is damaged; record the episode again'
        )


def _text(value: Any) -> str:
    """An attribute or dataset as text, empty if it is none."""
    if isinstance(value, h5py.Dataset):
        value = value[()]
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ''
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'replace')
    return value.strip() if isinstance(value, str) else ''
