# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""docs/quantization.md against the code: options, presets, open points, messages, components."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import types
import typing
from pathlib import Path

import pytest

from hbvla_ros.cli.main import build_parser
from hbvla_ros.quantization.methods import hbvla_options
from hbvla_ros.quantization.probe_options import PROBE_PRESETS, ProbeOptions
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.targets import COMPONENTS

ROOT = Path(__file__).resolve().parents[2]


def taken(kind):
    """What the text of an option may be, in the words of the tables."""
    if typing.get_origin(kind) is typing.Literal:
        return ', '.join(f'`{choice}`' for choice in typing.get_args(kind))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = next(one for one in typing.get_args(kind) if one is not type(None))
        return f'{taken(inner)} or `none`'
    return {int: 'whole number', float: 'number', bool: '`true`, `false`', str: 'text'}[kind]


def as_text(value):
    """A value as the command line takes it."""
    return {'True': 'true', 'False': 'false', 'None': 'none'}.get(str(value), str(value))


def option_table(options):
    """Rows of a table of options without their meaning; what has a flag of its own is left out."""
    kinds = typing.get_type_hints(options)
    fields = [f for f in dataclasses.fields(options) if f.name not in ('seed', 'kind')]
    return [[f'`{f.name}`', taken(kinds[f.name]), f'`{as_text(f.default)}`'] for f in fields]


def settings(text):
    return dict(re.findall(r'`(\w+)=([^`]*)`', text))


@pytest.mark.parametrize('method', METHODS.values(), ids=lambda method: method.name)
def test_options_of_methods(method, page, section, rows):
    table = rows(section(page('docs/quantization.md'), f'Options of {method.name}'))
    assert [cells[:3] for cells in table] == option_table(type(method.presets['default']))
    assert all(cells[3] for cells in table)


def test_options_of_the_probe(page, section, rows):
    table = rows(section(page('docs/quantization.md'), 'Options of the probe'))
    assert [cells[:3] for cells in table] == option_table(ProbeOptions)
    assert all(cells[3] for cells in table)


def test_presets(page, section, rows):
    table = rows(section(page('docs/quantization.md'), 'Presets'))
    described = {tuple(re.findall(r'`([^`]+)`', cells[0])): settings(cells[1]) for cells in table}
    presets = {
        (m.name, name): options for m in METHODS.values() for name, options in m.presets.items()
    }
    presets |= {('--probe', name): PROBE_PRESETS[name] for name in ('block', 'parity')}
    actual = {}
    for name, options in presets.items():
        values, base = dataclasses.asdict(options), dataclasses.asdict(type(options)())
        actual[name] = {k: as_text(v) for k, v in values.items() if v != base[k] and k != 'kind'}
    assert described == actual


@pytest.mark.parametrize(
    'heading, presets', [('The method', hbvla_options.PRESETS), ('The probe', PROBE_PRESETS)]
)
def test_values_of_open_points(heading, presets, page, section):
    text = section(page('docs/quantization.md'), 'What the paper leaves open')
    lines = (
        text.partition(f'**{heading}**')[2].partition('\n|')[2].partition('\n\n')[0].splitlines()
    )
    chosen = [presets[name] for name in re.findall(r'`(\w+)`', lines[0])]
    assert len(chosen) == 2
    assert len(lines) > 3
    for line in lines[2:]:
        cells = line.strip('|').split('|')[2:]
        for cell, options in zip(cells, chosen, strict=True):
            for name, value in settings(cell).items():
                assert as_text(getattr(options, name)) == value, line


def test_command_line_options_of_quantize(page, section, rows):
    actions = build_parser()._actions
    commands = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    table = rows(section(page('docs/quantization.md'), 'Command-line options'))
    described = {cells[0].strip('`'): cells[1].strip('`') for cells in table if cells[0][1] == '-'}
    actual = {
        a.option_strings[0]: '' if a.default in (None, []) or a.default is False else str(a.default)
        for a in commands['quantize']._actions
        if a.option_strings and a.dest not in ('help', 'out')
    }
    assert described == actual


def source_texts():
    """Every text in the code, with an ellipsis in the place of each value."""
    for path in ROOT.glob('hbvla_ros/**/*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.JoinedStr):
                yield ''.join(
                    part.value if isinstance(part, ast.Constant) else '…' for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_are_those_of_the_code(page, section, rows):
    texts = list(source_texts())
    table = rows(section(page('docs/quantization.md'), 'Messages and fixes'))
    assert len(table) > 20
    for cells in table:
        message = cells[0].strip('`')
        assert any(message in text for text in texts), message


def test_components_of_a_network(page, section, rows):
    table = rows(section(page('docs/quantization.md'), 'Components'))
    assert [cells[0].strip('`') for cells in table] == list(COMPONENTS)
