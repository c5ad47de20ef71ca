# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One budget of stored bits shared by all layers of a network (spec 4.1, sections 5 and 6).

Each layer says what it could cost and what error it would then make; bytes go where they take away
most error. The errors of layers are comparable because each is scaled by the layer's sensitivity.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.methods import signplane
from hbvla_ros.quantization.methods.signplane import SignPlaneOptions
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.registry import Method
from hbvla_ros.quantization.tiles import MOST_PLANES, tile_rows


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
    else:
        raise HbvlaError(f'--bits: {method.name} has no sizes that layers could share a budget by')
    return LayerCurve(name, rows, columns, tuple(candidates))


def allocate(curves: Sequence[LayerCurve], bits: float) -> dict[str, dict[str, Any]]:
    """Settings of every layer with the least error within a budget.

    Greedy along the lower convex hulls of the curves: always the step that takes away most error
    a byte. Equal steps go in the order of the layers. A step that no longer fits is left out, and
    smaller ones after it may still be taken.

    Args:
        curves: one for each layer.
        bits: budget of stored bits a weight over all layers; never exceeded.

    Returns:
        Layer name to what goes into ``dataclasses.replace(options, **settings)``.

    Raises:
        HbvlaError: the smallest candidates are already too much; says the smallest budget.
    """
    weights = sum(curve.rows * curve.columns for curve in curves)
    hulls = [_lower_hull(curve.candidates) for curve in curves]
    budget = math.floor(bits * weights / 8) if bits < math.inf else 2**62
    left = budget - sum(hull[0].bytes for hull in hulls)
    if not left >= 0:
        least = 8 * (budget - left) / weights
        raise HbvlaError(
            f'--bits {bits:g}: these layers take at least {least:.3f} stored bits; ask for '
            f'--bits {math.ceil(least * 100) / 100:g} or more'
        )
    chosen = [0] * len(hulls)
    queue = [step for layer, hull in enumerate(hulls) for step in _steps(hull, 0, layer)]
    heapq.heapify(queue)
    while queue:
        _, layer, place = heapq.heappop(queue)
        cost = hulls[layer][place].bytes - hulls[layer][place - 1].bytes
        if cost > left:
            continue
        left -= cost
        chosen[layer] = place
        for step in _steps(hulls[layer], place, layer):
            heapq.heappush(queue, step)
    return {
        curve.name: hull[place].settings
        for curve, hull, place in zip(curves, hulls, chosen, strict=True)
    }


def _steps(hull: list[Candidate], place: int, layer: int) -> list[tuple[float, int, int]]:
    """The next step of a layer for the queue, or none: (minus error a byte, layer, place)."""
    if place + 1 == len(hull):
        return []
    here, after = hull[place], hull[place + 1]
    return [((after.error - here.error) / (after.bytes - here.bytes), layer, place + 1)]


def _lower_hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates on the lower convex hull of error over bytes, up to the least error."""
    hull: list[Candidate] = []
    for point in sorted(candidates, key=lambda c: (c.bytes, c.error)):
        if hull and point.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _slope(hull[-1], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(first: Candidate, second: Candidate) -> float:
    """Error a byte between two candidates, negative."""
    return (second.error - first.error) / (second.bytes - first.bytes)


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
