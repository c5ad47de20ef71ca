# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A soak as JSON and as a page of Markdown."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hbvla_ros.evaluation.soak import FAULTS, SoakResult
from hbvla_ros.evaluation.tables import markdown
from hbvla_ros.evaluation.versions import versions

_VERDICTS = ('as specified', 'late', 'not as specified', 'undecided')


def to_json(result: SoakResult, command: str) -> dict[str, Any]:
    """Everything, plain JSON types."""
    return {
        'kind': 'soak',
        'command': command,
        'versions': versions(),
        'options': dataclasses.asdict(result.options),
        'wall_seconds': round(result.wall_seconds, 1),
        'ended': result.ended,
        'failures': result.failures,
        'faults': _by_fault(result),
        'summary': {key: value for key, value in result.summary.items() if key != 'event'},
        'events': result.events,
    }


def to_markdown(content: dict[str, Any]) -> str:
    """A summary of what :func:`to_json` gives."""
    options, summary = content['options'], content['summary']
    verdict = f'{len(content["failures"])} failures' if content['failures'] else 'No failures'
    parts = [
        f'`{content["command"]}`\n\n',
        f'{verdict}. {summary.get("seconds", 0.0) / 60.0:.1f} of {options["minutes"]:g} minutes of '
        f"the robot's time at {options['time_scale']:g} times real time, "
        f'{content["wall_seconds"] / 60.0:.1f} minutes on {content["versions"]["machine"]}.\n\n',
    ]
    if content['failures']:
        parts.append(''.join(f'- {line}\n' for line in content['failures']) + '\n')
    parts += [_wire(content), '\n', _faults(content['faults']), '\n', _memory(summary)]
    return ''.join(parts)


def _by_fault(result: SoakResult) -> dict[str, dict[str, Any]]:
    rows = {}
    for name in FAULTS:
        mine = [event for event in result.of('fault') if event['name'] == name]
        if not mine:
            continue
        counts = {verdict: sum(e['verdict'] == verdict for e in mine) for verdict in _VERDICTS}
        holds = [e['hold']['seconds'] for e in mine if e['hold'] is not None]
        bounds = [e['hold']['bound'] for e in mine if e['hold'] is not None]
        rows[name] = {
            'count': len(mine),
            **{verdict.replace(' ', '_'): count for verdict, count in counts.items()},
            'latched': mine[0]['latched'],
            'bound': bounds[0] if bounds else None,
            'hold_median': float(np.median(holds)) if holds else None,
            'hold_longest': max(holds, default=None),
        }
    return rows


def _wire(content: dict[str, Any]) -> str:
    lines = [['arm', 'commands', 'violations', 'widest step, share of the limit', 'not received']]
    violations = [event for event in content['events'] if event['event'] == 'violation']
    for one in content['summary'].get('wire', ()):
        widest = f'{one["widest_step"]:.3f}'
        lines.append([one['arm'], str(one['commands']), '', widest, str(one['lost'])])
    stops = sum(event['event'] == 'unasked stop' for event in content['events'])
    count = content['summary'].get('violations', len(violations))
    for line in lines[1:2]:
        line[2] = f'{count} of both arms'
    return markdown(lines) + f'\nStops that no fault asked for: {stops}.\n'


def _faults(faults: dict[str, dict[str, Any]]) -> str:
    lines = [
        ['fault', 'times', 'as specified', 'undecided', 'after it', 'hold, median', 'longest',
         'bound'],
    ]  # fmt: skip
    for name, one in faults.items():
        lines.append(
            [
                name, str(one['count']), str(one['as_specified']), str(one['undecided']),
                'stopped until reset' if one['latched'] else 'goes on by itself',
                _seconds(one['hold_median']), _seconds(one['hold_longest']),
                _seconds(one['bound']),
            ]
        )  # fmt: skip
    return markdown(lines)


def _memory(summary: dict[str, Any]) -> str:
    lines = [['process', 'started', 'ran', 'MB at first', 'at last', 'largest', 'growth, MB/h']]
    for one in summary.get('memory', ()):
        slope = 'too short to say'
        if one['slope'] is not None:
            slope = f'{one["slope"]:+.2f} ± {one["half_width"]:.2f}'
        lines.append(
            [
                f'`{one["name"]}`', str(one['processes']), f'{one["seconds"] / 60.0:.1f} min',
                f'{one["first"]:.1f}', f'{one["last"]:.1f}', f'{one["largest"]:.1f}', slope,
            ]
        )  # fmt: skip
    return markdown(lines)


def _seconds(value: float | None) -> str:
    return '' if value is None else f'{value:.2f} s'
