# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Sign planes by tile of 128 rows: what they take and how many a budget buys (spec 4.1)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from hbvla_ros.packed.bits import bytes_per_row
from hbvla_ros.packed.forms.sign_planes import MOST_PLANES, ROW_TILE

SCALE_BYTES = 2
# What is left of a tile's error with one plane more, about (spec section 6: 0.185, 0.057, 0.017).
_ERROR_RATIO = 0.3


def tile_rows(rows: int) -> list[int]:
    """Rows of each tile; the last one may be ragged."""
    return [min(ROW_TILE, rows - start) for start in range(0, rows, ROW_TILE)]


def plane_bytes(rows: int, columns: int, scale_bytes: int = SCALE_BYTES) -> int:
    """Bytes of one sign plane with its row scales, of so many rows."""
    return rows * (bytes_per_row(columns) + scale_bytes)


def layer_bytes(
    rows: int, columns: int, planes: Sequence[int], scale_bytes: int = SCALE_BYTES
) -> int:
    """Bytes of the planes, row scales and, where the tiles differ, plane counts of a layer.

    Args:
        rows: rows of the layer.
        columns: its columns.
        planes: planes of each tile.
        scale_bytes: bytes of a row scale.
    """
    total = sum(
        count * plane_bytes(height, columns, scale_bytes)
        for count, height in zip(planes, tile_rows(rows), strict=True)
    )
    return total + (len(planes) if len(set(planes)) > 1 else 0)


def planes_of_tiles(
    rows: int,
    columns: int,
    budget: int,
    energies: Sequence[float],
    scale_bytes: int = SCALE_BYTES,
) -> list[int] | None:
    """Planes of each tile within a number of bytes, where they take away most of the error.

    Args:
        rows: rows of the layer.
        columns: its columns.
        budget: bytes for planes, row scales and plane counts; never exceeded.
        energies: of each tile, what its error is proportional to.
        scale_bytes: bytes of a row scale.

    Returns:
        1 to 3 planes for each tile, or None where one plane is already too much.
    """
    heights = tile_rows(rows)
    uniform = max(
        (
            n
            for n in range(MOST_PLANES + 1)
            if n * plane_bytes(rows, columns, scale_bytes) <= budget
        ),
        default=0,
    )
    if uniform in (0, MOST_PLANES):
        return [uniform] * len(heights) if uniform else None
    planes = [1] * len(heights)
    left = budget - len(planes) - plane_bytes(rows, columns, scale_bytes)
    queue = [
        (-energy / height, tile)
        for tile, (energy, height) in enumerate(zip(energies, heights, strict=True))
    ]
    heapq.heapify(queue)
    while queue:
        gain, tile = heapq.heappop(queue)
        cost = plane_bytes(heights[tile], columns, scale_bytes)
        if cost > left:
            continue
        left -= cost
        planes[tile] += 1
        if planes[tile] < MOST_PLANES:
            heapq.heappush(queue, (gain * _ERROR_RATIO, tile))
    if sum(planes) < uniform * len(planes):  # the plane counts took the bytes of one plane
        return [uniform] * len(planes)
    return planes
