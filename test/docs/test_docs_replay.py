# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""docs/replay.md against the code: options, parameters, launch arguments, keys of the report."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

from hbvla_ros.cli.main import build_parser
from hbvla_ros.nodes import replay_node

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'replay.md').read_text(encoding='utf-8')


def table(heading):
    """Cells of the table below a heading, the first ones without their quotes."""
    text = re.split(r'^#+ ', PAGE.partition(f'# {heading}\n')[2], flags=re.MULTILINE)[0]
    lines = [line.strip('|').split('|') for line in text.splitlines() if line.startswith('| `')]
    return [[cell.strip() for cell in cells] for cells in lines]


def shown_default(value):
    return '' if value is None or value is False or value == [] else str(value)


def test_options():
    actions = build_parser()._actions
    commands = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    actual = {
        action.option_strings[0]: shown_default(action.default)
        for action in commands['replay']._actions
        if action.option_strings and action.dest != 'help'
    }
    described = {cells[0].strip('`'): cells[1].strip('`') for cells in table('Options')}
    assert described == actual


def test_parameters_of_the_player():
    described = {cells[0].strip('`'): cells[1:4] for cells in table('Parameters of replay_node')}
    actual = {}
    for parameter in replay_node.TABLE:
        span = f'{parameter.low:g} to {parameter.high:g}' if parameter.low is not None else ''
        kind = type(parameter.default).__name__
        actual[parameter.name] = [kind, f'`{parameter.default!r}`', span]
    assert described == actual


def test_launch_arguments():
    """Read without launch, which PyPI does not have."""
    text = (ROOT / 'launch' / 'replay.launch.py').read_text(encoding='utf-8')
    found = {
        entry.elts[0].value: entry.elts[1]
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and node.targets[0].id.endswith('ARGUMENTS')
        for entry in node.value.elts
    }
    described = {cells[0].strip('`'): cells[1].strip('`') for cells in table('replay.launch.py')}
    assert list(described) == list(found)
    for name, default in found.items():
        if isinstance(default, ast.Constant):
            shown = {None: 'required', '': 'empty'}.get(default.value, default.value)
            assert described[name] == shown, name


def test_robot_arguments_are_those_of_the_robot():
    """What replay.launch.py passes on is what robot.launch.py takes."""

    def names(file, variable):
        text = (ROOT / 'launch' / file).read_text(encoding='utf-8')
        return {
            entry.elts[0].value
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign) and node.targets[0].id == variable
            for entry in node.value.elts
        }

    assert names('replay.launch.py', 'ROBOT_ARGUMENTS') <= names('robot.launch.py', 'ARGUMENTS')


def test_keys_of_the_report():
    text = (ROOT / 'hbvla_ros' / 'evaluation' / 'replay_run.py').read_text(encoding='utf-8')
    function = next(
        node for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == '_report'
    )  # fmt: skip
    keys = {
        key.value
        for node in ast.walk(function)
        if isinstance(node, ast.Return)
        for key in node.value.keys
    }
    described = {
        word for cells in table('What comes out') for word in re.findall(r'`(\w+)`', cells[0])
    }
    assert described == keys
