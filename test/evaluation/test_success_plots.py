# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hbvla_ros.evaluation.success_plots import drift_figure, success_figure, write_plots

NAMES = ('full@1', 'rtn@2', 'ours@3')
BITS = dict(zip(NAMES, (16.0, 1.065, 1.06), strict=True))


def rows(task: str | None, rates: tuple[float, ...]) -> list[dict]:
    return [
        {'checkpoint': name, 'success_rate': rate, 'interval': [rate * 0.8, rate * 0.8 + 0.2],
         **({'task': task} if task else {'stored_bits_per_weight': BITS[name]})}
        for name, rate in zip(NAMES, rates, strict=True)
    ]  # fmt: skip


RESULTS = rows('pick_place', (0.9, 0.0, 0.6)) + rows('stack', (0.8, 0.1, 0.5))
TOTALS = rows(None, (0.85, 0.05, 0.55))
TOTALS[1]['action_error'] = {'by_row': [0.3, 0.31, 0.4]}
TOTALS[2]['action_error'] = {'by_row': [0.1, 0.12, 0.2]}


def test_points_stand_at_their_rate_with_their_interval():
    figure = success_figure(RESULTS, TOTALS)
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ['all tasks', 'pick_place', 'stack']
    points = panels[1].containers
    assert len(points) == 3
    line, _, (bars,) = points[2].lines
    assert line.get_ydata() == pytest.approx([60.0])
    assert bars.get_segments()[0][:, 1] == pytest.approx([48.0, 68.0])
    assert points[2].get_label() == 'ours, 1.060 bits'
    # Two checkpoints of almost the same bits are told apart, without changing their order.
    places = [float(one.lines[0].get_xdata()[0]) for one in points]
    assert places[2] == 1.06 and 1.065 <= places[1] < 1.12 and places[0] == 16.0
    low, high = panels[1].get_xlim()
    assert low < min(places) and max(places) < high


def test_one_task_has_one_panel_and_unknown_bits_none():
    assert len(success_figure(RESULTS[:3], TOTALS).axes) == 1
    unknown = [{**row, 'stored_bits_per_weight': None} for row in TOTALS]
    assert success_figure(RESULTS, unknown) is None


def test_drift_is_a_line_a_checkpoint_in_its_colour():
    axis = drift_figure(TOTALS).axes[0]
    lines = axis.get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[0.3, 0.31, 0.4], [0.1, 0.12, 0.2]]
    assert list(lines[0].get_xdata()) == [1, 2, 3]
    points = success_figure(RESULTS, TOTALS).axes[0].containers
    assert lines[0].get_color() == points[1].lines[0].get_color()
    assert drift_figure(TOTALS[:1]) is None


def test_files_are_pictures_and_the_same_each_time(tmp_path):
    report = {'results': RESULTS, 'totals': TOTALS}
    written = write_plots(report, tmp_path / 'new')
    assert [path.name for path in written] == [
        'success.png', 'success.svg', 'success_by_task.png', 'success_by_task.svg', 'drift.png',
        'drift.svg',
    ]  # fmt: skip
    before = [path.read_bytes() for path in written]
    write_plots(report, tmp_path / 'new')
    assert [path.read_bytes() for path in written] == before
    picture = np.asarray(Image.open(written[0]).convert('L'))
    assert picture[0, 0] == 255 and picture.min() < 60
    assert '<svg' in written[1].read_text() and 'ours, 1.060 bits' in written[1].read_text()
