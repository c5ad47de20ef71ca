# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One budget of stored bits shared by all layers of a network (spec 4.1, sections 5 and 6).

Each layer says what it could cost and what error it would then make; bytes go where they take away
most error. The errors of layers are comparable because each is scaled by the layer's sensitivity.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.curves import Candidate, LayerCurve


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
