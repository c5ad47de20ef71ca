# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Plots of a replay, as SVG text that takes its ink from the page around it."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hbvla_ros.drawing import COLOURS, STYLE, svg_text
from hbvla_ros.evaluation.replay import Replayed
from hbvla_ros.evaluation.replay_errors import OpenLoopError, joint_labels
from hbvla_ros.evaluation.replay_policy import ACCEPTED, Inference
from hbvla_ros.evaluation.replay_run import ReplayResult

Vector = NDArray[np.float64]

_COLUMNS = 4
_LEAST_SPAN = 0.2
_RECORDED, _POLICY, _COMMANDED, _OTHER = COLOURS
_HOLD_SHADE = 0.15


def joint_plots(result: ReplayResult) -> dict[str, str]:
    """Recorded against wanted and commanded, a figure an arm.

    Returns:
        Name of the arm to SVG text: its joints, and how the error grows over the rows of a chunk.
    """
    labels, first, plots = joint_labels(result.profile), 0, {}
    for arm in result.profile.arms:
        columns = range(first, first + len(arm.names))
        first += len(arm.names)
        plots[arm.name] = _arm_plot(result, columns, labels)
    return plots


def timeline_plot(replayed: Replayed, control_period: float) -> str:
    """Latency of each inference and what became of it, holds, and interventions, over time.

    Args:
        replayed: the replay.
        control_period: s between two ticks.

    Returns:
        SVG text.
    """
    kinds = list(dict.fromkeys(kind for tick in replayed.ticks for kind in tick.interventions))
    with matplotlib.rc_context(STYLE):
        height = 2.6 + 0.22 * max(len(kinds), 1)
        figure = Figure(figsize=(10, height), layout='constrained')
        upper, lower = figure.subplots(
            2, 1, sharex=True, height_ratios=[1.6, 0.5 + 0.22 * max(len(kinds), 1)]
        )
        _draw_latencies(upper, replayed.inferences)
        for axis in (upper, lower):
            _shade_holds(axis, replayed, control_period)
        for row, kind in enumerate(kinds):
            times = [t.instant.elapsed for t in replayed.ticks if kind in t.interventions]
            lower.plot(times, [row] * len(times), '|', color=_POLICY, ms=7, mew=1.2)
        lower.set_yticks(range(len(kinds)), kinds)
        lower.set_ylim(-0.7, max(len(kinds), 1) - 0.3)
        lower.set_xlabel('s after the first message')
        lower.set_title('interventions of the safety stage' if kinds else
                        'no interventions of the safety stage', fontsize=9)  # fmt: skip
        return svg_text(figure)


def _arm_plot(result: ReplayResult, columns: range, labels: list[str]) -> str:
    rows = -(-(len(columns) + 1) // _COLUMNS)
    with matplotlib.rc_context(STYLE):
        height = 2.2 * rows + 0.3
        figure = Figure(figsize=(10, height))
        # Laid out by hand: with so many axes the layout engine takes most of the time.
        axes = figure.subplots(
            rows, _COLUMNS, squeeze=False,
            gridspec_kw={
                'left': 0.055, 'right': 0.995, 'top': 1 - 0.55 / height, 'bottom': 0.45 / height,
                'wspace': 0.36, 'hspace': 0.42,
            },
        ).ravel()  # fmt: skip
        for axis, column in zip(axes, columns, strict=False):
            _draw_joint(axis, result, column)
            gripper = result.profile.is_gripper[column]
            axis.set_title(labels[column], fontsize=9)
            axis.set_ylabel('0 closed, 1 open' if gripper else 'rad', fontsize=8)
        last = axes[len(columns)]
        _draw_error(last, result, columns)
        for axis in axes[len(columns) + 1 :]:
            axis.set_visible(False)
        for axis in axes[(rows - 1) * _COLUMNS : len(columns)]:
            axis.set_xlabel('s', fontsize=8)
        handles = [
            Line2D([], [], color=_RECORDED, lw=1.6), Line2D([], [], color=_POLICY, lw=0.9),
            Line2D([], [], color=_COMMANDED, lw=1.1, ls='--'),
        ]  # fmt: skip
        names = ['recorded', 'chunks of the policy', 'commanded']
        drawn = slice(None) if result.recorded is not None else slice(1, None)
        figure.legend(handles[drawn], names[drawn], loc='upper right', ncols=3, fontsize=8)
        return svg_text(figure)


def _draw_joint(axis: Axes, result: ReplayResult, column: int) -> None:
    replayed = result.replayed
    ticks = replayed.ticks
    elapsed = np.array([tick.instant.elapsed for tick in ticks])
    if result.recorded is not None:
        known = elapsed <= replayed.last
        poses = result.recorded.poses.at(np.array([tick.instant.now for tick in ticks])[known])
        axis.plot(elapsed[known], poses[:, column], color=_RECORDED, lw=1.6)
    lines = [_chunk_line(one, column) for one in replayed.inferences if one.chunk is not None]
    axis.add_collection(LineCollection(lines, colors=_POLICY, linewidths=0.7, alpha=0.75))
    commands = [np.nan if t.command is None else t.command[column] for t in ticks]
    axis.plot(elapsed, commands, color=_COMMANDED, lw=1.1, ls='--')
    axis.autoscale_view()
    axis.locator_params(nbins=5)
    low, high = axis.get_ylim()
    # A joint that rests must not look as if it moved.
    missing = max(0.0, _LEAST_SPAN - (high - low))
    axis.set_ylim(low - missing / 2, high + missing / 2)


def _chunk_line(inference: Inference, column: int) -> Vector:
    """Points (K, 2) of one joint of a chunk, s after the first message and value."""
    chunk, started = inference.chunk, inference.started
    assert chunk is not None
    due = chunk.start + chunk.step * np.arange(len(chunk.actions)) - started.now + started.elapsed
    return np.column_stack([due, chunk.actions[:, column]])


def _draw_error(axis: Axes, result: ReplayResult, columns: range) -> None:
    """How the arm's error grows from the first row of a chunk to the last."""
    chunks = [one.chunk for one in result.replayed.inferences if one.chunk is not None]
    error = None
    if result.recorded is not None:
        error = OpenLoopError.of(chunks, result.recorded.poses)
    if error is None or not error.compared:
        axis.set_visible(False)
        return
    joints = np.zeros(len(result.profile.is_gripper), dtype=bool)
    joints[list(columns)] = True
    rows = 1e3 * error.by_row(joints & ~result.profile.is_gripper)
    axis.plot(np.arange(len(rows)), rows, color=_OTHER, lw=1.3, marker='.', ms=4)
    axis.set_title('error of its joints by row', fontsize=9)
    axis.set_ylabel('mrad, mean', fontsize=8)
    axis.set_xlabel('row of the chunk', fontsize=8)
    axis.set_ylim(bottom=0)


def _draw_latencies(axis: Axes, inferences: list[Inference]) -> None:
    groups = {'chunk accepted': [], 'not accepted': [], 'no end': []}  # type: dict[str, list[Inference]]
    for one in inferences:
        name = 'chunk accepted' if one.outcome == ACCEPTED else 'not accepted'
        groups['no end' if one.replied is None else name].append(one)
    marks = {'chunk accepted': ('o', _RECORDED), 'not accepted': ('x', _POLICY),
             'no end': ('>', _OTHER)}  # fmt: skip
    known = [1e3 * one.reply.seconds for one in inferences if one.replied is not None]
    top = 1.25 * max(known, default=1.0)
    for name, members in groups.items():
        if members:
            mark, colour = marks[name]
            times = [one.started.elapsed for one in members]
            # What never ended is drawn at the upper edge.
            values = [min(1e3 * one.reply.seconds, 0.95 * top) for one in members]
            axis.plot(times, values, mark, color=colour, ms=4, label=name)
    axis.set_ylim(0, top)
    axis.set_ylabel('ms')
    axis.set_title('latency of the inferences, injected; shaded: the arms hold', fontsize=9)
    if inferences:
        axis.legend(fontsize=8, loc='upper right', ncols=3)


def _shade_holds(axis: Axes, replayed: Replayed, period: float) -> None:
    start = None
    ends = [*replayed.ticks, None]
    for index, tick in enumerate(ends):
        if tick is not None and tick.holding:
            start = tick.instant.elapsed if start is None else start
        elif start is not None:
            stop = replayed.ticks[index - 1].instant.elapsed + period
            axis.axvspan(start, stop, color='gray', alpha=_HOLD_SHADE, lw=0)
            start = None
