# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.meshes import coarsen, read_triangles


def write_stl(path, triangles):
    body = b''.join(struct.pack('<12fH', 0, 0, 0, *np.ravel(triangle), 0) for triangle in triangles)
    path.write_bytes(b' ' * 80 + struct.pack('<I', len(triangles)) + body)


def sphere(count=40):
    """Triangles of a unit sphere."""
    angles = np.linspace(0, np.pi, count)
    turns = np.linspace(0, 2 * np.pi, count)
    grid = np.stack(
        [
            np.outer(np.sin(angles), np.cos(turns)),
            np.outer(np.sin(angles), np.sin(turns)),
            np.outer(np.cos(angles), np.ones(count)),
        ],
        axis=-1,
    )
    triangles = []
    for i in range(count - 1):
        for j in range(count - 1):
            a, b, c, d = grid[i, j], grid[i + 1, j], grid[i + 1, j + 1], grid[i, j + 1]
            triangles += [(a, b, c), (a, c, d)]
    return np.array(triangles)


def test_read_returns_what_was_written(tmp_path):
    triangles = sphere(6)
    write_stl(tmp_path / 'a.stl', triangles)
    np.testing.assert_allclose(read_triangles(tmp_path / 'a.stl'), triangles, atol=1e-6)


def test_coarse_sphere_is_smaller_and_still_a_sphere():
    triangles = sphere()
    vertices, faces = coarsen(triangles, 0.25)
    assert len(faces) < len(triangles) / 3
    assert faces.max() == len(vertices) - 1
    assert len(np.unique(np.sort(faces, axis=1), axis=0)) == len(faces)
    radii = np.linalg.norm(vertices, axis=1)
    assert 0.9 < radii.min() and radii.max() <= 1.0 + 1e-9


def test_truncated_file_is_refused(tmp_path):
    write_stl(tmp_path / 'a.stl', sphere(6))
    content = (tmp_path / 'a.stl').read_bytes()
    (tmp_path / 'a.stl').write_bytes(content[:-10])
    with pytest.raises(HbvlaError, match='a.stl: not a whole binary STL'):
        read_triangles(tmp_path / 'a.stl')
