# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Plots of an evaluation: success against stored bits, and action error over the horizon."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hbvla_ros.drawing import COLOURS, STYLE
from hbvla_ros.evaluation.tables import bits_text, display_names

Result = Mapping[str, Any]
# Nine marks and four colours: the first 36 checkpoints look different.
_MARKS = 'osD^vP*X<'
# Checkpoints whose bits are closer than this are drawn side by side.
_APART = 1.035
_TICKS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_DPI = 150
_PANELS_A_ROW = 4


def success_figure(results: Sequence[Result], totals: Sequence[Result]) -> Figure | None:
    """Success with Wilson intervals against stored bits; None where no bits are known.

    Args:
        results: one for each checkpoint and task.
        totals: one a checkpoint, with ``stored_bits_per_weight``.
    """
    known = [row for row in totals if row.get('stored_bits_per_weight')]
    if not known:
        return None
    places = _side_by_side({row['checkpoint']: row['stored_bits_per_weight'] for row in known})
    tasks = list(dict.fromkeys(one['task'] for one in results))
    panels: list[tuple[str, Sequence[Result]]] = [
        (task, [one for one in results if one['task'] == task and one['checkpoint'] in places])
        for task in tasks
    ]
    if len(tasks) > 1:
        panels.insert(0, ('all tasks', known))
    rows = -(-len(panels) // _PANELS_A_ROW)
    columns = min(len(panels), _PANELS_A_ROW)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * columns + 1.9, 2.8 * rows + 0.3), layout='constrained')
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axis, (title, points) in zip(axes, panels, strict=False):
            _draw_success(axis, points, places, totals)
            axis.set_title(title, fontsize=10)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for index, axis in enumerate(axes[: len(panels)]):
            axis.set_xlabel('stored bits per weight' if index + columns >= len(panels) else '')
            axis.set_ylabel('success, %' if index % columns == 0 else '')
        handles, labels = axes[0].get_legend_handles_labels()
        _legend_beside(axes[columns - 1], handles, labels)
        return figure


def _legend_beside(axis: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    axis.legend(handles, labels, loc='upper left', bbox_to_anchor=(1.02, 1.0), fontsize=8)


def _draw_success(
    axis: Axes, points: Sequence[Result], places: Mapping[str, float], totals: Sequence[Result]
) -> None:
    """One panel; colour and mark of a checkpoint are the same in all of them."""
    names = display_names(totals)
    order = [row['checkpoint'] for row in totals]
    for point in points:
        index = order.index(point['checkpoint'])
        low, high = point['interval']
        rate = point['success_rate']
        axis.errorbar(
            places[point['checkpoint']],
            100 * rate,
            yerr=[[100 * max(rate - low, 0)], [100 * max(high - rate, 0)]],
            fmt=_MARKS[index % len(_MARKS)],
            color=COLOURS[index % len(COLOURS)],
            ms=5,
            lw=1.2,
            capsize=2.5,
            label=f'{names[point["checkpoint"]]}, {bits_text(totals[index])} bits',
        )
    low, high = min(places.values()), max(places.values())
    axis.set_xscale('log')
    axis.set_xlim(low / 1.15, high * 1.15)
    axis.xaxis.set_major_locator(FixedLocator(_ticks(low / 1.15, high * 1.15)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(-3, 103)
    axis.grid(axis='y', lw=0.4, alpha=0.4)


def _side_by_side(bits: Mapping[str, float]) -> dict[str, float]:
    """Where to draw each checkpoint: at its bits, or a little to the right of its neighbour."""
    places: dict[str, float] = {}
    last = 0.0
    for name in sorted(bits, key=lambda one: bits[one]):
        last = places[name] = max(bits[name], last * _APART)
    return places


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers of bits between two ends, not more than six."""
    inside = [tick for tick in _TICKS if low <= tick <= high]
    return inside if len(inside) <= 6 else [tick for tick in inside if tick in (1, 2, 4, 8, 16, 32)]


def drift_figure(totals: Sequence[Result]) -> Figure | None:
    """Relative action error over the rows of a chunk; None where it was not measured."""
    found = [row for row in totals if row.get('action_error')]
    found = [row for row in found if None not in row['action_error']['by_row']]
    if not found:
        return None
    names = display_names(totals)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.0), layout='constrained')
        axis = figure.subplots()
        for row in found:
            index = totals.index(row)
            values = row['action_error']['by_row']
            axis.plot(
                np.arange(1, len(values) + 1),
                values,
                marker=_MARKS[index % len(_MARKS)],
                color=COLOURS[index % len(COLOURS)],
                ms=4,
                lw=1.2,
                label=names[row['checkpoint']],
            )
        axis.set_xlabel('row of the chunk')
        axis.set_ylabel('relative action error')
        axis.set_ylim(bottom=0)
        axis.grid(axis='y', lw=0.4, alpha=0.4)
        _legend_beside(axis, *axis.get_legend_handles_labels())
        return figure


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots, each as PNG and as SVG, as far as they can be drawn.

    ``success`` over all tasks, ``success_by_task`` where there are several, and ``drift``.

    Args:
        report: ``results`` and ``totals``.
        folder: made if missing.

    Returns:
        The files.

    Raises:
        HbvlaError: the folder cannot be written.
    """
    from hbvla_ros.evaluation.report import write_atomically

    whole = [{**row, 'task': 'all tasks'} for row in report['totals']]
    several = len({one['task'] for one in report['results']}) > 1
    figures = {
        'success': success_figure(whole if several else report['results'], report['totals']),
        'success_by_task': success_figure(report['results'], report['totals']) if several else None,
        'drift': drift_figure(report['totals']),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for kind in ('png', 'svg') if figure is not None else ():
            path = folder / f'{name}.{kind}'
            write_atomically(path, _picture(figure, kind))
            written.append(path)
    return written


def _picture(figure: Any, kind: str) -> bytes:
    """The figure as a file that is the same whenever it is drawn, on white paper."""
    nameless = {'Software': None} if kind == 'png' else {'Date': None, 'Creator': None}
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=_DPI, facecolor='white', metadata=nameless)
    return buffer.getvalue()
