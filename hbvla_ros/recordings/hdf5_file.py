# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""An HDF5 file that is open only while it is read."""

from __future__ import annotations

from pathlib import Path

import h5py

from hbvla_ros.errors import HbvlaError


class Hdf5File:
    """Opens a file when something is asked of it, and again after :meth:`close`.

    Args:
        path: the file.
        advice: what to do about one that cannot be read, such as ``download it again``.
    """

    def __init__(self, path: Path, advice: str) -> None:
        """Nothing is opened yet."""
        self._path, self._advice = path, advice
        self._open: h5py.File | None = None

    def open(self) -> h5py.File:
        """The open file.

        Raises:
            HbvlaError: it is not a readable HDF5 file.
        """
        if self._open is None:
            try:
                self._open = h5py.File(self._path, 'r')
            except OSError as error:
                raise HbvlaError(
                    f'{self._path}: not a readable HDF5 file; {self._advice}'
                ) from error
        return self._open

    def close(self) -> None:
        """Close the file if it is open."""
        if self._open is not None:
            self._open.close()
            self._open = None
