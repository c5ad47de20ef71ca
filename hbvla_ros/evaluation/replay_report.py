# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The report of a replay: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hbvla_ros.evaluation.replay_plots import joint_plots, timeline_plot
from hbvla_ros.evaluation.replay_run import ReplayResult
from hbvla_ros.evaluation.report import templates

_SHOWN_HOLDS = 40


def render_replay(result: ReplayResult, command: str, versions: Mapping[str, str]) -> str:
    """The report as HTML text without external resources.

    Args:
        result: the replay.
        command: the command line that made it.
        versions: what it was made with, name to text.
    """
    from markupsafe import Markup

    report = result.report
    plots = joint_plots(result)
    return templates().get_template('replay.html').render(
        title=f'Replay of {report["bag"]["path"].rstrip("/").rpartition("/")[2]}',
        report=report,
        facts=_facts(report),
        notices=_notices(report),
        joints=_joint_rows(report),
        holds=report['holds'][:_SHOWN_HOLDS],
        more_holds=max(0, len(report['holds']) - _SHOWN_HOLDS),
        timeline=Markup(timeline_plot(result.replayed, 1.0 / result.profile.control_rate)),
        plots={name: Markup(text) for name, text in plots.items()},
        command=command,
        versions=versions,
    )  # fmt: skip


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures on top: name, value, and what it says."""
    inferences, commands = report['inferences'], report['commands']
    error, worst = report['open_loop_error'], commands['worst_step']
    seconds = commands['holding'] / report['settings']['control_rate_hz']
    facts = [
        (
            'open-loop error of the joints',
            '-' if error is None else f'{1e3 * error["joints_rad"]:.1f} mrad',
            'nothing compared' if error is None else _compared(error),
        ),
        (
            'inferences',
            f'{inferences["accepted"]} of {inferences["started"]}',
            'chunks that the arms took',
        ),
        (
            'holding',
            f'{seconds:.2f} s',
            f'of {report["bag"]["seconds"]:.2f} s, and what came after',
        ),
        (
            'interventions',
            str(sum(report['interventions'].values())),
            f'in {commands["ticks"]} turns of the control loop',
        ),
    ]
    if worst is not None:
        facts.append((
            'largest step', f'{100 * worst["share"]:.0f} %',
            f'of what {worst["joint"]} may move in one turn, at {worst["at_s"]:.2f} s',
        ))  # fmt: skip
    return facts


def _compared(error: Mapping[str, Any]) -> str:
    what = {'commands': 'the recorded commands', 'poses': 'the measured poses'}[error['against']]
    grippers = error['grippers']
    of_grippers = '' if grippers is None else f'; grippers {grippers:.3f}'
    return f'mean against {what}, {error["rows_compared"]} rows{of_grippers}'


def _notices(report: Mapping[str, Any]) -> list[str]:
    """What a reader must not overlook."""
    commands, notices = report['commands'], []
    if report['stop']:
        notices.append(
            f'The arms were stopped, and only a reset would move them: {report["stop"]}.'
        )
    if report['settings']['degradations']:
        faults = ', '.join(report['settings']['degradations'])
        notices.append(f'Faults were put into the recording: {faults}.')
    for key, text in (
        ('not_finite', 'were not finite'),
        ('outside_limits', 'were outside the position limits'),
        ('steps_above_limit', 'moved faster than the velocity limit'),
    ):
        if commands[key]:
            notices.append(f'{commands[key]} commands {text}.')
    return notices


def _joint_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    error = report['open_loop_error']
    if error is None:
        return []
    rows = []
    for name, values in error['by_joint'].items():
        scale, unit = (1e3, 'mrad') if values['unit'] == 'rad' else (1.0, 'ratio')
        first, last = values['by_row'][0], values['by_row'][-1]
        rows.append({
            'name': name,
            'unit': unit,
            **{
                key: _text(value, scale)
                for key, value in (
                    ('mean', values['mean']), ('first', first), ('last', last),
                    ('worst', values['worst']), ('sent', values['sent']),
                )
            },
        })  # fmt: skip
    return rows


def _text(value: float | None, scale: float) -> str:
    if value is None:
        return '-'
    return f'{scale * value:.1f}' if scale > 1.0 else f'{value:.3f}'
