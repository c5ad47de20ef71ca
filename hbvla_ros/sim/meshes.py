# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Coarser meshes for drawing: software rendering of small images is bound by triangle counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError

_HEADER = 84
_TRIANGLE = np.dtype([('normal', '<f4', 3), ('corners', '<f4', (3, 3)), ('attribute', '<u2')])


def read_triangles(path: Path) -> NDArray[np.float64]:
    """Triangles (N, 3, 3) of a binary STL file, in the file's unit.

    Raises:
        HbvlaError: not a binary STL file, or truncated.
    """
    raw = path.read_bytes()
    count = int.from_bytes(raw[_HEADER - 4 : _HEADER], 'little')
    if len(raw) != _HEADER + count * _TRIANGLE.itemsize or count == 0:
        raise HbvlaError(f'{path}: not a whole binary STL file; install gym-aloha again')
    corners = np.frombuffer(raw, _TRIANGLE, count, _HEADER)['corners']
    return np.asarray(corners, dtype=np.float64)


def coarsen(
    triangles: NDArray[np.float64], cell: float
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Merge all corners that share a grid cell and drop what has collapsed.

    Args:
        triangles: (N, 3, 3) corners.
        cell: edge of the cubic cells, in the unit of the corners.

    Returns:
        Vertices (V, 3) and faces (F, 3), no face twice.
    """
    corners = triangles.reshape(-1, 3)
    keys = np.floor((corners - corners.min(axis=0)) / cell).astype(np.int64)
    _, groups = np.unique(keys, axis=0, return_inverse=True)
    groups = groups.ravel()
    sizes = np.bincount(groups)
    vertices = np.stack(
        [np.bincount(groups, weights=corners[:, axis]) / sizes for axis in range(3)], axis=1
    )
    faces = groups.reshape(-1, 3)
    whole = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    )
    faces = faces[whole]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return vertices, faces[np.sort(first)].astype(np.int32)
