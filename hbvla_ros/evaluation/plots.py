# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Plots for the report, as SVG text that takes its ink from the page around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hbvla_ros.drawing import COLOURS, STYLE, svg_text
from hbvla_ros.evaluation.episode import Trace

_GRIPPERS = (6, 13)
_LEAST_SPAN = 0.2
_NAMES = ('waist', 'shoulder', 'elbow', 'forearm roll', 'wrist angle', 'wrist rotate', 'gripper')


def joint_tracking(trace: Trace) -> str:
    """Commanded against measured, for the arm that moved more.

    Args:
        trace: of a robot with two arms of six joints and a gripper each.

    Returns:
        SVG text: six joints, the gripper, and the distance between command and measurement.
    """
    arm = moving_arm(trace)
    columns = range(7 * arm, 7 * arm + 7)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout='constrained')
        axes = figure.subplots(2, 4, sharex=True).ravel()
        for axis, column, name in zip(axes, columns, _NAMES, strict=False):
            axis.plot(trace.times, trace.positions[:, column], color=COLOURS[0], lw=1.4)
            axis.plot(trace.times, trace.commands[:, column], color=COLOURS[1], lw=1.0, ls='--')
            unit = '0 closed, 1 open' if column in _GRIPPERS else 'rad'
            axis.set_title(f'{("left", "right")[arm]} {name}', fontsize=9)
            axis.set_ylabel(unit, fontsize=8)
            _widen(axis)
        _error_panel(axes[7], trace, [c for c in columns if c not in _GRIPPERS])
        for axis in axes[4:]:
            axis.set_xlabel('s', fontsize=8)
        axes[0].legend(['measured', 'commanded'], fontsize=8, loc='best')
        return svg_text(figure)


def _widen(axis: Axes) -> None:
    """At least 0.2 high: a joint that rests must not look as if it moved."""
    low, high = axis.get_ylim()
    missing = _LEAST_SPAN - (high - low)
    if missing > 0:
        axis.set_ylim(low - missing / 2, high + missing / 2)


def _error_panel(axis: Axes, trace: Trace, columns: Sequence[int]) -> None:
    """Root mean square over joints of command minus measurement, in milliradians."""
    error = (trace.commands - trace.positions)[:, list(columns)]
    axis.plot(trace.times, 1e3 * np.sqrt((error**2).mean(axis=1)), color=COLOURS[2], lw=1.2)
    axis.set_title('difference over joints', fontsize=9)
    axis.set_ylabel('mrad, RMS', fontsize=8)
    axis.set_ylim(bottom=0)


def moving_arm(trace: Trace) -> int:
    """0 for the left arm, 1 for the right one: which was commanded the longer way."""
    way = np.abs(np.diff(trace.commands, axis=0)).sum(axis=0)
    joints = [index for index in range(7) if index not in _GRIPPERS]
    return int(way[[7 + joint for joint in joints]].sum() > way[joints].sum())


def latency_distribution(latencies: Mapping[str, Sequence[float]]) -> str:
    """Share of policy calls that took at most so long, one line a condition.

    Args:
        latencies: name of the condition to seconds of each call.

    Returns:
        SVG text.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 2.6), layout='constrained')
        axis = figure.subplots()
        for (name, values), colour in zip(latencies.items(), COLOURS, strict=False):
            if len(values):
                ordered: NDArray[np.float64] = np.sort(np.asarray(values, dtype=np.float64))
                share = np.arange(1, len(ordered) + 1) / len(ordered)
                axis.step(1e3 * ordered, share, where='post', color=colour, label=name, lw=1.4)
        axis.set_xlabel('ms from images to chunk')
        axis.set_ylabel('share of chunks')
        axis.set_ylim(0, 1.02)
        axis.set_xlim(left=0)
        axis.legend(fontsize=8, loc='lower right')
        return svg_text(figure)
