# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest

from hbvla_ros.evaluation import tables

SETTINGS = {'where': 'in process', 'parallel': 1}


def result(checkpoint: str, task: str, successes: int, **more) -> dict:
    return {
        'checkpoint': checkpoint, 'task': task, 'text': f'{successes}/10 = {successes}0 % (1 to 2)',
        'episodes': 10, 'settings': SETTINGS, 'seeds': [3_000_000, 3_000_009],
        'time_to_success_p50_s': 4.25 if successes else None, 'jerk_rms_p50': 120.04,
        'latency_p50_s': 0.0254, 'stages': {'touched': 10, 'done': successes}, **more,
    }  # fmt: skip


PAIRED = {
    'reference': 'full@1', 'difference': -0.30, 'interval': [-0.57, 0.05], 'p_value': 0.25,
    'kept': 0.625, 'kept_interval': [0.31, 1.04],
}  # fmt: skip
ERROR = {
    'reference': 'full@1', 'frames': 44, 'relative_rms': 0.0651, 'by_row': [0.036, 0.07, 0.041],
    'by_stage': {'nothing': {'frames': 40, 'relative_rms': 0.06},
                 'done': {'frames': 0, 'relative_rms': None}},
}  # fmt: skip
RESULTS = [
    result('full@1', 'pick_place', 8),
    result('full@1', 'stack', 9),
    result('ours@2', 'pick_place', 5, paired=PAIRED, action_error=ERROR),
    result('ours@2', 'stack', 0, paired=PAIRED, action_error=ERROR),
]
TOTALS = [
    {'checkpoint': 'full@1', 'text': '17/20', 'stored_bits_per_weight': 16.0},
    {'checkpoint': 'ours@2', 'text': '5/20', 'stored_bits_per_weight': 1.0996, 'paired': PAIRED,
     'action_error': ERROR},
]  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip('|\n').split('|')]


def test_the_table_of_success_has_a_line_a_checkpoint():
    lines = tables.success_lines(RESULTS, TOTALS)
    assert lines[0] == [
        'checkpoint', 'stored bits', 'pick_place', 'stack', 'all tasks', 'difference', 'p', 'kept',
        'action error',
    ]  # fmt: skip
    assert lines[1][:2] == ['full', '16.00'] and lines[1][5:] == ['-', '-', '-', '-']
    assert lines[2] == [
        'ours', '1.100', '5/10 = 50 % (1 to 2)', '0/10 = 00 % (1 to 2)', '5/20',
        '-30 (-57 to +5)', '0.25', '63 % (31 to 104 %)', '0.065',
    ]  # fmt: skip
    assert tables.success_lines(RESULTS[:1], TOTALS[:1])[0] == [
        'checkpoint', 'stored bits', 'pick_place',
    ]  # fmt: skip


def test_a_checkpoint_that_lacks_a_task_has_a_dash():
    assert tables.success_lines(RESULTS[:3], TOTALS)[2][3] == '-'


def test_the_table_of_measures_has_a_line_a_result():
    lines = tables.measure_lines(RESULTS, TOTALS)
    assert lines[3] == [
        'ours', 'pick_place', '4.2 s', '120.0 rad/s^3', '25 ms', '0.065', '0.036', '0.041',
    ]  # fmt: skip
    assert lines[4][2] == '-' and lines[1][5:] == ['-', '-', '-']


def test_the_lines_of_a_terminal_are_whole_and_aligned():
    text = tables.aligned(tables.terminal_lines(RESULTS, TOTALS))
    lines = text.splitlines()
    assert len(lines) == 2 + 6 and set(lines[1]) == {'-', ' '}
    starts = [match.start() for match in re.finditer('-+', lines[1])]
    assert lines[2][starts[2] :].startswith('pick_place')
    assert lines[4][starts[2] :].startswith('all tasks')
    assert lines[7].split()[:3] == ['all', 'tasks', '5/20']
    assert '63 % (31 to 104 %)' in lines[7] and not any(line.endswith(' ') for line in lines)


def test_markdown_keeps_bars_inside_cells():
    text = tables.markdown([['a', 'b'], ['x|y', '1']])
    assert text == '| a | b |\n| --- | --- |\n| x\\|y | 1 |\n'


def test_the_page_says_how_the_numbers_came_about():
    report = {
        'results': RESULTS, 'totals': TOTALS, 'created': '2026-01-01', 'versions': {'torch': '2'},
    }  # fmt: skip
    page = tables.markdown_page(report, 'hbvla eval full ours')
    for text in ('seeds 3000000 to 3000009', 'in process', 'McNemar', 'full@1 on the same seeds',
                 '44 observations', 'Episodes of stack', 'torch 2', 'hbvla eval full ours',
                 '| ours | 0.060 | - |'):  # fmt: skip
        assert text in page, text
    for block in re.findall(r'(?:^\|.*\n)+', page, re.MULTILINE):
        assert len({len(cells(line)) for line in block.splitlines()}) == 1
    alone = {**report, 'results': RESULTS[:1], 'totals': TOTALS[:1]}
    assert 'McNemar' not in tables.markdown_page(alone, '')


def test_names_are_short_unless_that_is_ambiguous():
    rows = [{'checkpoint': name} for name in ('one@12', 'two@34', 'two@56', 'bare')]
    assert list(tables.display_names(rows).values()) == ['one', 'two@34', 'two@56', 'bare']


@pytest.mark.parametrize(
    ('value', 'text'), [(0.25, '0.25'), (0.00781, '0.0078'), (1.0, '1'), (3e-7, '< 0.0001')]
)
def test_p_values(value, text):
    assert tables.p_text(value) == text
