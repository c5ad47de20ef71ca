# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Options of each layer for what ``--bits`` asks of the whole network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from hbvla_ros.packed.forms.sign_planes import MOST_PLANES
from hbvla_ros.quantization.allocation import allocate
from hbvla_ros.quantization.budget import options_for_layer
from hbvla_ros.quantization.curves import LayerCurve, measure_curve
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.progress import Progress
from hbvla_ros.quantization.request import Plan
from hbvla_ros.quantization.resume import WorkFolder


class Measured(NamedTuple):
    """A layer whose errors at different sizes are to be estimated.

    Attributes:
        name: of the layer.
        weight: float32 (rows, columns).
        hessian: float32 (columns, columns), or None for white inputs.
        sensitivity: what an output error of this layer costs, None for the relative error.
    """

    name: str
    weight: Tensor
    hessian: Tensor | None = None
    sensitivity: float | None = None


def shares_budget(plan: Plan) -> bool:
    """Whether the layers share one budget, instead of all having the same number of planes."""
    planes = plan.method.planes and plan.bits in range(1, MOST_PLANES + 1)
    return plan.method.budgeted and plan.bits is not None and not planes


def share_budget(
    plan: Plan,
    shapes: Mapping[str, tuple[int, ...]],
    show_all: Callable[[Callable[[Measured], None]], None],
    work: WorkFolder,
    progress: Progress,
) -> dict[str, MethodOptions]:
    """Options of each layer.

    Args:
        plan: method, options and budget.
        shapes: layer name to (rows, columns).
        show_all: shows every layer of the full-precision network to a function; called only if
            errors must be estimated.
        work: keeps the curves for a resumed run.
        progress: told of each layer.

    Raises:
        HbvlaError: the budget is impossible.
    """
    bits = plan.bits
    if not shares_budget(plan) or bits is None:
        return {
            name: options_for_layer(plan.method, plan.options, rows, columns, bits)
            for name, (rows, columns) in shapes.items()
        }

    def measure() -> list[dict[str, object]]:
        progress.stage('sharing the budget', len(shapes))
        curves: list[dict[str, object]] = []

        def add(one: Measured) -> None:
            curve = measure_curve(
                one.name, one.weight, one.hessian, plan.method, plan.options, one.sensitivity
            )
            curves.append(curve.to_json())
            progress.step()

        show_all(add)
        return curves

    curves = [LayerCurve.from_json(value) for value in work.values('curves', measure)]
    settings = allocate(curves, bits)
    return {name: dataclasses.replace(plan.options, **settings[name]) for name in shapes}
