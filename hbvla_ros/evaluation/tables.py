# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The report of ``hbvla eval`` as tables: lines of cells for a terminal, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
Lines = list[list[str]]
_PAIRS = ['difference', 'p', 'kept']


def display_names(rows: Sequence[Result]) -> dict[str, str]:
    """Checkpoint identity to a short name: the folder's own, longer where two are the same."""
    names = {row['checkpoint']: str(row['checkpoint']).rpartition('@')[0] for row in rows}
    short = list(names.values())
    return {
        identity: name if name and short.count(name) == 1 else identity
        for identity, name in names.items()
    }


def success_lines(results: Sequence[Result], totals: Sequence[Result]) -> Lines:
    """Heading and one line a checkpoint: bits, success in every task and in total, the pairs.

    Args:
        results: one for each checkpoint and task, see :mod:`hbvla_ros.evaluation.results`.
        totals: one a checkpoint; ``stored_bits_per_weight`` is shown where it is known.
    """
    tasks = list(dict.fromkeys(one['task'] for one in results))
    cells = {(one['checkpoint'], one['task']): one for one in results}
    names = display_names(totals)
    paired, errors = _any(totals, 'paired'), _any(totals, 'action_error')
    heading = ['checkpoint', 'stored bits', *tasks]
    heading += ['all tasks'] * (len(tasks) > 1)
    heading += _PAIRS * paired + ['action error'] * errors
    lines = [heading]
    for row in totals:
        line = [names[row['checkpoint']], bits_text(row)]
        line += [_success(cells.get((row['checkpoint'], task))) for task in tasks]
        line += [_success(row)] * (len(tasks) > 1)
        if paired:
            line += _pair_cells(row)
        if errors:
            error = row.get('action_error')
            line.append(number(error and error['relative_rms'], 3))
        lines.append(line)
    return lines


def terminal_lines(results: Sequence[Result], totals: Sequence[Result]) -> Lines:
    """Heading and one line for each checkpoint and task, then one for all tasks; narrow."""
    names, paired = display_names(totals), _any(totals, 'paired')
    heading = ['checkpoint', 'bits', 'task', 'success'] + _PAIRS * paired
    lines = [heading]
    for row in totals:
        mine = [one for one in results if one['checkpoint'] == row['checkpoint']]
        tasks = [(one['task'], one) for one in mine] + [('all tasks', row)] * (len(mine) > 1)
        for index, (task, one) in enumerate(tasks):
            first = [names[row['checkpoint']], bits_text(row)] if index == 0 else ['', '']
            pairs = _pair_cells(one) if paired else []
            lines.append([*first, task, str(one['text']), *pairs])
    return lines


def measure_lines(results: Sequence[Result], totals: Sequence[Result]) -> Lines:
    """Heading and one line for each checkpoint and task: what was measured besides success."""
    names = display_names(totals)
    errors = _any(results, 'action_error')
    heading = ['checkpoint', 'task', 'time to success', 'jerk', 'policy call']
    heading += ['action error', 'first row', 'last row'] * errors
    lines = [heading]
    for row in results:
        latency, jerk = row.get('latency_p50_s'), row.get('jerk_rms_p50')
        line = [
            names[row['checkpoint']],
            row['task'],
            _with_unit(row.get('time_to_success_p50_s'), 1, 's'),
            _with_unit(jerk, 1, 'rad/s^3'),
            _with_unit(latency and 1e3 * latency, 0, 'ms'),
        ]
        if errors:
            error = row.get('action_error')
            by_row = error['by_row'] if error else [None]
            values = (error and error['relative_rms'], by_row[0], by_row[-1])
            line += [number(value, 3) for value in values]
        lines.append(line)
    return lines


def stage_lines(results: Sequence[Result], totals: Sequence[Result], task: str) -> Lines:
    """Heading and one line a checkpoint: episodes that reached each stage of one task."""
    names = display_names(totals)
    mine = [one for one in results if one['task'] == task]
    stages = list(mine[0]['stages'])
    lines = [['checkpoint', 'episodes', *stages]]
    for one in mine:
        reached = [str(one['stages'][stage]) for stage in stages]
        lines.append([names[one['checkpoint']], str(one['episodes']), *reached])
    return lines


def stage_error_lines(results: Sequence[Result], totals: Sequence[Result], task: str) -> Lines:
    """Heading and one line a checkpoint: action error by stage of one task; [] without errors."""
    names = display_names(totals)
    mine = [one for one in results if one['task'] == task and one.get('action_error')]
    if not mine:
        return []
    stages = list(mine[0]['action_error']['by_stage'])
    lines = [['checkpoint', *stages]]
    for one in mine:
        errors = one['action_error']['by_stage']
        values = [number(errors[stage]['relative_rms'], 3) for stage in stages]
        lines.append([names[one['checkpoint']], *values])
    return lines


def markdown(lines: Lines) -> str:
    """A Markdown table."""
    # A bar would begin another cell.
    rows = [[cell.replace('|', '\\|') for cell in line] for line in lines]
    rows.insert(1, ['---'] * len(lines[0]))
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def aligned(lines: Lines) -> str:
    """Plain text in columns, with a rule below the heading."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rows = [lines[0], ['-' * width for width in widths], *lines[1:]]
    text = [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return '\n'.join(text) + '\n'


def markdown_page(report: Mapping[str, Any], command: str) -> str:
    """Everything that a reader of the numbers needs, as Markdown.

    Args:
        report: ``results``, ``totals``, ``versions`` and ``created``.
        command: the command line that makes it again.
    """
    results, totals = report['results'], report['totals']
    first = results[0]
    settings = first['settings']
    seeds = f'{first["seeds"][0]} to {first["seeds"][-1]}'
    parts = [
        f'Success in closed loop, {settings["where"]}, seeds {seeds} of each task, 95 % Wilson '
        'intervals in brackets. Stored bits count every byte that is needed to rebuild the '
        'quantized weights.\n',
        markdown(success_lines(results, totals)),
        *_explanations(totals),
        markdown(measure_lines(results, totals)),
        'Medians over episodes: simulated time to success, root mean square jerk of the commands, '
        'wall time of a policy call.\n',
    ]
    for task in dict.fromkeys(one['task'] for one in results):
        parts += [
            f'Episodes of {task} that got at least so far:\n',
            markdown(stage_lines(results, totals, task)),
        ]
        errors = stage_error_lines(results, totals, task)
        if errors:
            parts += ['Relative action error by the stage reached:\n', markdown(errors)]
    versions = ', '.join(f'{name} {value}' for name, value in report['versions'].items())
    parts += [f'Made {report["created"]} with {versions}:\n', f'```\n{command}\n```\n']
    return '\n'.join(parts)


def _explanations(totals: Sequence[Result]) -> list[str]:
    """What the columns of pairs and of action errors mean, where there are any."""
    parts = []
    paired = next((row['paired'] for row in totals if row.get('paired')), None)
    if paired:
        parts.append(
            f'Difference to {paired["reference"]} on the same seeds in points, with the 95 % '
            'interval of Newcombe for pairs; p of the exact McNemar test; kept: share of its '
            'success, with the 95 % interval of Donner and Zou.\n'
        )
    error = next((row['action_error'] for row in totals if row.get('action_error')), None)
    if error:
        parts.append(
            f'Action error: root mean square difference from full precision on {error["frames"]} '
            'observations of its own episodes, over the spread of its actions.\n'
        )
    return parts


def bits_text(row: Result) -> str:
    """Stored bits a weight, such as ``1.063``."""
    bits = row.get('stored_bits_per_weight')
    if bits is None:
        return '-'
    return f'{bits:.2f}' if bits >= 10 else f'{bits:.3f}'


def number(value: float | None, digits: int) -> str:
    """A number or a dash."""
    return '-' if value is None else f'{value:.{digits}f}'


def percent(rate: float) -> int:
    """Nearest whole percent, halves up."""
    return math.floor(100 * rate + 0.5)


def difference_text(pairs: Mapping[str, Any]) -> str:
    """Such as ``-12 (-18 to -6)``, in points."""
    low, high = pairs['interval']
    return f'{percent(pairs["difference"]):+d} ({percent(low):+d} to {percent(high):+d})'


def p_text(value: float) -> str:
    """A p-value to two digits, very small ones as a bound."""
    return '< 0.0001' if value < 1e-4 else f'{value:.2g}'


def kept_text(pairs: Mapping[str, Any]) -> str:
    """Such as ``93 % (88 to 98 %)``; a dash where the reference never succeeded."""
    if pairs['kept'] is None:
        return '-'
    low, high = pairs['kept_interval']
    return f'{percent(pairs["kept"])} % ({percent(low)} to {percent(high)} %)'


def _pair_cells(row: Result) -> list[str]:
    pairs = row.get('paired')
    if not pairs:
        return ['-', '-', '-']
    return [difference_text(pairs), p_text(pairs['p_value']), kept_text(pairs)]


def _success(row: Result | None) -> str:
    return '-' if row is None else str(row['text'])


def _with_unit(value: float | None, digits: int, unit: str) -> str:
    return '-' if value is None else f'{value:.{digits}f} {unit}'


def _any(rows: Sequence[Result], key: str) -> bool:
    return any(row.get(key) for row in rows)
