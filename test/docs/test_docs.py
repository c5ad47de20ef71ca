# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The documentation against the code: links, commands, tests it names, tables of keys."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from hbvla_ros.cli.main import build_parser
from hbvla_ros.control.profile_types import ADAPTERS, GRIPPER_ADAPTERS, SafetyProfile
from hbvla_ros.nodes import (
    arm_parameters,
    bringup_node,
    guard_node,
    policy_parameters,
    quantize_parameters,
    sim_robot_node,
)
from hbvla_ros.nodes.lifecycle import AUTOSTART

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/**/*.md')]
    + [*ROOT.glob('models/**/*.md')]
)
FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```', re.MULTILINE | re.DOTALL)
TABLES = {
    'policy_node': (*policy_parameters.TABLE, AUTOSTART),
    'arm_node': (*arm_parameters.TABLE, AUTOSTART),
    'guard_node': guard_node.TABLE,
    'bringup_node': bringup_node.TABLE,
    'sim_robot_node': sim_robot_node.TABLE,
    'quantize_node': quantize_parameters.TABLE,
}


def anchors(text):
    plain = FENCE.sub('', text)
    headings = re.findall(r'^#+ (.+)$', plain, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_point_somewhere(path):
    text = FENCE.sub('', path.read_text(encoding='utf-8'))
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match(r'[a-z]+:', link):
            continue
        target, _, anchor = link.partition('#')
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f'{path.name}: {link}'
        if anchor:
            assert anchor in anchors(file.read_text(encoding='utf-8')), f'{path.name}: {link}'


def shown_commands(text):
    """Subcommand and the rest of each hbvla command line in code blocks and code spans."""
    blocks = [block.replace('\\\n', ' ') for _, block in FENCE.findall(text)]
    lines = [line.partition(' #')[0] for block in blocks for line in block.splitlines()]
    spans = re.findall(r'`([^`\n]+)`', FENCE.sub('', text))
    for line in lines + spans:
        for found in re.finditer(r'(?:^|[\s/])hbvla ([a-z]+(?:-[a-z]+)*)\b([^;&|]*)', line):
            yield found[1], found[2]


def options_of(parser, rest):
    """Options of a command, or of the subcommand that the rest of the line begins with."""
    word = rest.split()[0] if rest.split() else ''
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and word in action.choices:
            return options_of(action.choices[word], rest.partition(word)[2])
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_exist(path):
    actions = build_parser()._actions
    commands = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    for command, rest in shown_commands(path.read_text(encoding='utf-8')):
        assert command in commands, f'{path.name}: hbvla {command}'
        known = options_of(commands[command], rest)
        for option in re.findall(r'(?<![\w-])--[a-z][\w-]*', rest):
            assert option in known, f'{path.name}: hbvla {command} {option}'


def test_every_command_is_shown():
    actions = build_parser()._actions
    commands = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    shown = {
        command for path in PAGES for command, _ in shown_commands(path.read_text(encoding='utf-8'))
    }
    assert shown == set(commands)


@pytest.mark.parametrize('node', TABLES)
def test_node_parameters(node, page, section, rows):
    text = section(page('docs/robots.md'), f'Parameters of {node}')
    described = {cells[0].strip('`'): (cells[1], cells[2].strip('`')) for cells in rows(text)}
    actual = {p.name: (type(p.default).__name__, repr(p.default)) for p in TABLES[node]}
    assert described == actual


@pytest.mark.parametrize('node', TABLES)
def test_parameter_file_sets_parameters_that_exist(node, page):
    content = yaml.safe_load(page('config/policy.yaml'))[f'/**/{node}']['ros__parameters']
    known = {parameter.name: type(parameter.default) for parameter in TABLES[node]}
    assert {name: known.get(name) for name in content} == {n: type(v) for n, v in content.items()}


@pytest.mark.parametrize('file', ['sim.launch.py', 'robot.launch.py', 'quantize.launch.py'])
def test_launch_arguments(file, page, section, names):
    """Read without launch, which PyPI does not have."""
    module = ast.parse(page(f'launch/{file}'))
    values = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and node.targets[0].id.endswith('ARGUMENTS')
    ]
    actual = [entry.elts[0].value for value in values for entry in value.elts]
    assert names(section(page('docs/robots.md'), file)) == actual
    passed_on = re.search(r'for name, _, _ in (NODE_)?ARGUMENTS', page(f'launch/{file}'))
    assert passed_on or all(page(f'launch/{file}').count(f"'{name}'") >= 2 for name in actual)


def launch_defaults(file):
    """Default values by argument; those that are texts, or None where one must be given."""
    entries = [
        entry.elts
        for node in ast.parse((ROOT / 'launch' / file).read_text(encoding='utf-8')).body
        if isinstance(node, ast.Assign) and node.targets[0].id.endswith('ARGUMENTS')
        for entry in node.value.elts
    ]
    return {name.value: text.value for name, text, _ in entries if isinstance(text, ast.Constant)}


@pytest.mark.parametrize('file', ['sim.launch.py', 'robot.launch.py'])
def test_defaults_of_launch_arguments(file, page, section, rows):
    table = rows(section(page('docs/robots.md'), file))
    described = {cells[0].strip('`'): cells[1].strip('`') for cells in table}
    for name, default in launch_defaults(file).items():
        assert described[name] == {None: 'must be given', '': 'empty'}.get(default, default), name


@pytest.mark.parametrize(
    'file, expected',
    [('robot.launch.py', 'true'), ('sim.launch.py', 'false'), ('replay.launch.py', 'false')],
)
def test_a_robot_waits_for_a_person_and_the_others_do_not(file, expected):
    defaults = launch_defaults(file)
    assert [defaults[name] for name in ('hold_on_loss', 'wait_for_start')] == [expected] * 2


def test_profile_keys(page, section, names):
    """Every key of the shipped profiles is explained, and no other."""

    def paths(value, prefix=''):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from paths(inner, f'{prefix}.{key}' if prefix else key)
        elif isinstance(value, list) and isinstance(value[0], dict):
            for inner in value:
                yield from paths(inner, f'{prefix}[]')
        else:
            yield prefix

    shipped = sorted((ROOT / 'config' / 'robots').glob('*.yaml'))
    content = [yaml.safe_load(path.read_text(encoding='utf-8')) for path in shipped]
    described, last = set(), ''
    for word in names(section(page('docs/robots.md'), 'The robot profile')):
        # A word that begins with a dot takes the place of the last part of the one before.
        last = last.rpartition('.')[0] + word if word.startswith('.') else word
        kinds = ('observed', 'action', 'command') if '.*.' in last else ('',)
        described |= {last.replace('*', kind) for kind in kinds}
    described -= {'arms[]', 'cameras[]', 'stop_services[]', *ADAPTERS, *GRIPPER_ADAPTERS}
    found = {path for profile in content for path in paths(profile)}
    assert described == found
    assert {f'safety.{field.name}' for field in dataclasses.fields(SafetyProfile)} <= described


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_exist(path, page):
    for file, name in re.findall(
        r'`(test/[\w/]+\.py)(?:::(\w+))?`', path.read_text(encoding='utf-8')
    ):
        assert (ROOT / file).is_file(), file
        assert not name or re.search(rf'^def {name}\(', page(file), re.MULTILINE), name


def test_import_table_is_the_rule(page, section, rows):
    module = ast.parse(page('test/test_imports.py'))
    rule = next(
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'ALLOWED'
    )
    table = section(page('docs/architecture.md'), 'Who may import whom')
    described = {}
    for cells in rows(table):
        allowed = (
            set(rule) - {'cli'} if cells[1] == 'all of them' else re.findall(r'`(\w+)`', cells[1])
        )
        described |= dict.fromkeys(re.findall(r'`(\w+)`', cells[0]), set(allowed))
    assert {part for part in described if part in rule} == set(rule)
    assert {part: described[part] for part in rule} == rule
