# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a layer's error would be at different sizes, estimated without quantizing it in full."""

from __future__ import annotations

import dataclasses
import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.methods import dbf, signplane
from hbvla_ros.quantization.methods.dbf import DbfOptions
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.registry import Method
from hbvla_ros.quantization.tiles import MOST_PLANES, tile_rows

# Logarithm of the error of dbf over that at 1.05 bits of its signs a weight. The same within 5 %
# on all of the spec's structured layers.
_WIDTH_BITS = (0.3, 0.6, 1.05, 1.5, 2.2, 3.2)
_WIDTH_ERRORS = (1.33, 0.60, 0.0, -0.435, -0.94, -1.43)
_MEASURED_BITS = 1.05
# A fit with so few steps is about 1.4 times worse than one with all, on all layers alike.
_QUICK_STEPS = 12
_WIDTH_GRID = 64


@dataclass(frozen=True)
class Candidate:
    """One way to quantize a layer.

    Attributes:
        settings: fields of the method's options that make it so; plain JSON.
        bytes: stored bytes of the layer.
        error: its estimated error ``tr(E H E^T)``, scaled by the layer's sensitivity.
    """

    settings: dict[str, Any]
    bytes: int
    error: float


@dataclass(frozen=True)
class LayerCurve:
    """What a layer's error would be at different sizes.

    Attributes:
        name: name of the layer.
        rows: its outputs.
        columns: its inputs.
        candidates: at least one, in any order.
    """

    name: str
    rows: int
    columns: int
    candidates: tuple[Candidate, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, see :meth:`from_json`."""
        points = [[c.settings, c.bytes, c.error] for c in self.candidates]
        return {
            'name': self.name,
            'rows': self.rows,
            'columns': self.columns,
            'candidates': points,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> LayerCurve:
        """Inverse of :meth:`to_json`."""
        points = tuple(Candidate(*point) for point in value['candidates'])
        return LayerCurve(value['name'], value['rows'], value['columns'], points)


def measure_curve(
    name: str,
    weight: Tensor,
    hessian: Tensor | None,
    method: Method,
    options: MethodOptions,
    sensitivity: float | None = None,
) -> LayerCurve:
    """Estimate a layer's errors at different sizes; far cheaper than quantizing it.

    Args:
        name: name of the layer.
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), or None for white inputs.
        method: a budgeted method.
        options: its options but for the size.
        sensitivity: what an error ``tr(E H E^T)`` of this layer costs; None for one over
            ``tr(W H W^T)``, which makes it the relative error of the layer's output. With a
            Hessian that is itself weighed by absolute action gradients it is 1.

    Raises:
        HbvlaError: the method has no sizes to choose from.
    """
    rows, columns = weight.shape
    if sensitivity is None:
        pulled = weight if hessian is None else weight @ hessian
        energy = float((pulled * weight).sum())
        sensitivity = 1 / energy if energy > 0 else 0.0
    if isinstance(options, SignPlaneOptions):
        errors = signplane.estimate_tile_errors(weight, hessian, options) * sensitivity
        candidates = _tile_candidates(rows, columns, errors.T.tolist(), options)
    elif isinstance(options, DbfOptions):
        candidates = _width_candidates(weight, hessian, sensitivity, options)
    else:
        raise HbvlaError(f'--bits: {method.name} has no sizes that layers could share a budget by')
    return LayerCurve(name, rows, columns, tuple(candidates))


def _tile_candidates(
    rows: int, columns: int, errors: list[list[float]], options: SignPlaneOptions
) -> list[Candidate]:
    """From one plane everywhere to three, one tile at a time, the tile with most to gain first.

    Args:
        rows: rows of the layer.
        columns: its columns.
        errors: of each tile its error with 1, 2 and 3 planes.
        options: for what the planes cost.
    """
    heights = tile_rows(rows)
    planes = [1] * len(heights)
    total = sum(tile[0] for tile in errors)

    def gain(tile: int) -> float:
        taken = errors[tile][planes[tile] - 1] - errors[tile][planes[tile]]
        return -taken / heights[tile]

    def candidate() -> Candidate:
        mixed = len(set(planes)) > 1
        settings = {
            'planes': planes[0] if not mixed else options.planes,
            'tile_planes': ''.join(map(str, planes)) if mixed else None,
            'stored_bits': None,
        }
        return Candidate(settings, options.stored_bytes(rows, columns, planes), total)

    candidates = [candidate()]
    queue = [(gain(tile), tile) for tile in range(len(planes))]
    heapq.heapify(queue)
    while queue:
        step, tile = heapq.heappop(queue)
        planes[tile] += 1
        total += step * heights[tile]
        candidates.append(candidate())
        if planes[tile] < MOST_PLANES:
            heapq.heappush(queue, (gain(tile), tile))
    return candidates


def _width_candidates(
    weight: Tensor, hessian: Tensor | None, sensitivity: float, options: DbfOptions
) -> list[Candidate]:
    """Inner widths from 0.3 to 3.2 bits a weight, from one quick fit at 1.05.

    The error of a double binary factorization falls with its width in the same way on all layers,
    so that one point says where the curve of a layer lies.
    """
    rows, columns = weight.shape
    each = (rows + columns) / (rows * columns)  # bits a weight of one unit of the width
    quick = max(1, round(_MEASURED_BITS / each))
    fitted = dataclasses.replace(options, width=quick, steps=_QUICK_STEPS, rounds=0)
    error = weight - dbf.quantize(weight, hessian, fitted).reconstruct()
    measured = float(((error if hessian is None else error @ hessian) * error).sum()) * sensitivity
    candidates = []
    grid = np.geomspace(_WIDTH_BITS[0], _WIDTH_BITS[-1], _WIDTH_GRID)
    for width in sorted({max(1, round(bits / each / 8) * 8) for bits in grid}):
        logarithm = _log_error(width * each) - _log_error(quick * each)
        candidates.append(
            Candidate(
                {'width': width},
                options.stored_bytes(rows, columns, width),
                measured * math.exp(logarithm),
            )
        )
    return candidates


def _log_error(bits: float) -> float:
    """Logarithm of the error of dbf at so many bits of its signs a weight."""
    return float(np.interp(math.log(bits), np.log(_WIDTH_BITS), _WIDTH_ERRORS))
