# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What ``hbvla eval`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hbvla_ros.evaluation import tables
from hbvla_ros.evaluation.plan import OVER_ROS


def print_report(report: Mapping[str, Any], is_single: bool) -> None:
    """One result in a few lines, several as tables.

    Args:
        report: ``results`` and ``totals``.
        is_single: whether one checkpoint was judged in one task.
    """
    if is_single:
        print(single_text(report), end='')
        return
    # Plain lines: figures that are cut off or wrapped at the terminal's edge are of no use.
    print(tables.aligned(tables.terminal_lines(report['results'], report['totals'])))
    print(tables.aligned(tables.measure_lines(report['results'], report['totals'])), end='')


def single_text(report: Mapping[str, Any]) -> str:
    """The result of one checkpoint in one task in a few lines."""
    result = report['results'][-1]
    lines = [f'success  {result["text"]}']
    if result.get('paired'):
        pairs = result['paired']
        lines += [
            f'against {pairs["reference"]}  {report["results"][0]["text"]} on the same seeds',
            f'difference  {tables.difference_text(pairs)} points, p = '
            f'{tables.p_text(pairs["p_value"])} (only this one: {pairs["only_this"]}, only the '
            f'other: {pairs["only_reference"]})',
            f'kept  {tables.kept_text(pairs)} of its success',
        ]
    if result['time_to_success_p50_s'] is not None:
        median, late = result['time_to_success_p50_s'], result['time_to_success_p95_s']
        lines.append(f'time to success  {median:.1f} s median, {late:.1f} s p95')
    if result['jerk_rms_p50'] is not None:
        lines.append(f'jerk of the commands  {result["jerk_rms_p50"]:.1f} rad/s^3 RMS, median')
    error = result.get('action_error')
    if error:
        first, last = error['by_row'][0], error['by_row'][-1]
        lines.append(
            f'action error  {tables.number(error["relative_rms"], 3)} of the spread over '
            f'{error["frames"]} observations; first row {tables.number(first, 3)}, last '
            f'{tables.number(last, 3)}'
        )
    lines += [_latency(result), f'{result["episodes"]} episodes in {result["wall_seconds"]:.0f} s']
    return '\n'.join(line for line in lines if line) + '\n'


def _latency(result: Mapping[str, Any]) -> str:
    if result['latency_p50_s'] is None:
        return ''
    settings = result['settings']
    what = 'images to chunk over DDS'
    if settings['where'] != OVER_ROS:
        batch = settings['parallel']
        what = 'policy call' + (f' on up to {batch} observations together' if batch > 1 else '')
    median, late = 1e3 * result['latency_p50_s'], 1e3 * result['latency_p95_s']
    return f'{what}  {median:.0f} ms median, {late:.0f} ms p95'
