# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Episodes of ``hbvla demos``: ``episode_*.npz`` with JPEG frames."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.recording import Needs, check_width, digest_of


class SimulatorEpisode:
    """One simulator episode: JPEG frames, proprioception, instruction."""

    kind = 'simulator'

    def __init__(self, path: Path, needs: Needs) -> None:
        """Check the keys; images are read when they are asked for.

        Raises:
            HbvlaError: not readable, a camera or key is missing, or of another width.
        """
        self.path, self._needs = path, needs
        self._images: dict[str, NDArray[Any]] = {}
        names = self._read()
        for camera in needs.cameras:
            for key in (f'jpeg_{camera}', f'offset_{camera}'):
                if key not in names:
                    there = [name[5:] for name in names if name.startswith('jpeg_')]
                    raise HbvlaError(
                        f'{path}: no {key}; the policy needs camera {camera}, '
                        f'there are {", ".join(there) or "none"}'
                    )
        for key in ('proprioception', 'instruction'):
            if key not in names:
                raise HbvlaError(f'{path}: no {key}; record the episode again')
        arrays = self._read('proprioception', 'instruction')
        self._proprioception = np.asarray(arrays['proprioception'], dtype=np.float64)
        self._instruction = str(arrays['instruction'])
        if self._proprioception.ndim != 2:
            raise HbvlaError(f'{path}: proprioception is not a matrix; record the episode again')
        check_width(path, 'proprioception', self._proprioception.shape[1], needs)

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @property
    def instruction(self) -> str:
        """What the operator asked for."""
        return self._instruction

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._proprioception)

    def observation(self, index: int) -> Observation:
        """One frame; the stamp counts frames, because the file has no times.

        Raises:
            HbvlaError: a JPEG is damaged.
        """
        images = {camera: self._image(camera, index) for camera in self._needs.cameras}
        return Observation(images, self._proprioception[index], self._instruction, float(index))

    def digest(self) -> str:
        """SHA-256 over name and bytes of the file."""
        return digest_of([self.path])

    def close(self) -> None:
        """Forget the images that were read."""
        self._images.clear()

    def _read(self, *keys: str) -> dict[str, Any]:
        """The named arrays; without names, every name with nothing."""
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                if not keys:
                    return dict.fromkeys(arrays.files)
                return {key: arrays[key] for key in keys}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise HbvlaError(f'{self.path}: not a readable episode; record it again') from error

    def jpeg(self, camera: str, index: int) -> bytes:
        """The JPEG file of one frame, as it was recorded.

        Raises:
            HbvlaError: there is none.
        """
        if f'jpeg_{camera}' not in self._images:
            self._images.update(self._read(f'jpeg_{camera}', f'offset_{camera}'))
        try:
            begin, end = self._images[f'offset_{camera}'][index : index + 2]
        except ValueError as error:
            raise self._damaged(camera, index) from error
        return bytes(self._images[f'jpeg_{camera}'][int(begin) : int(end)].tobytes())

    def _image(self, camera: str, index: int) -> NDArray[np.uint8]:
        try:
            return np.asarray(simplejpeg.decode_jpeg(self.jpeg(camera, index), colorspace='RGB'))
        except ValueError as error:
            raise self._damaged(camera, index) from error

    def _damaged(self, camera: str, index: int) -> HbvlaError:
        return HbvlaError(
            f'{self.path}: frame {index} of {camera} is damaged; record the episode again'
        )
