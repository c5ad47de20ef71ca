# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The documentation against the code: links, commands, tests it names, tables of keys."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import types
import typing
from pathlib import Path

import pytest
import torch
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
from hbvla_ros.packed.forms.factored import FactoredLayer
from hbvla_ros.packed.forms.grouped import GroupedLayer, GroupedPart
from hbvla_ros.packed.forms.registry import FORMS
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.manifest import LayerEntry, Manifest
from hbvla_ros.quantization.methods import hbvla_options
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.probe_options import PROBE_PRESETS, ProbeOptions
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.targets import COMPONENTS
from hbvla_ros.vla.platform import PLATFORMS, Platform

ROOT = Path(__file__).resolve().parents[1]
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


def page(name):
    return (ROOT / name).read_text(encoding='utf-8')


def section(text, heading):
    """The text below a heading, to the next one of the same or a higher level."""
    found = re.search(rf'^(#+) {re.escape(heading)}$', text, re.MULTILINE)
    assert found, f'no heading {heading!r}'
    rest = text[found.end() :]
    end = re.search(rf'^#{{1,{len(found[1])}}} ', rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text):
    """Cells of the table rows whose first cell begins as code."""
    lines = [line.strip().strip('|').split('|') for line in text.splitlines() if '|' in line]
    return [[cell.strip() for cell in cells] for cells in lines if cells[0].strip()[:1] == '`']


def names(text):
    """The code words in the first cells of a table."""
    return [word for cells in rows(text) for word in re.findall(r'`([^`]+)`', cells[0])]


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
def test_node_parameters(node):
    text = section(page('docs/robots.md'), f'Parameters of {node}')
    described = {cells[0].strip('`'): (cells[1], cells[2].strip('`')) for cells in rows(text)}
    actual = {p.name: (type(p.default).__name__, repr(p.default)) for p in TABLES[node]}
    assert described == actual


@pytest.mark.parametrize('node', TABLES)
def test_parameter_file_sets_parameters_that_exist(node):
    content = yaml.safe_load(page('config/policy.yaml'))[f'/**/{node}']['ros__parameters']
    known = {parameter.name: type(parameter.default) for parameter in TABLES[node]}
    assert {name: known.get(name) for name in content} == {n: type(v) for n, v in content.items()}


@pytest.mark.parametrize('file', ['sim.launch.py', 'robot.launch.py', 'quantize.launch.py'])
def test_launch_arguments(file):
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
        for node in ast.parse(page(f'launch/{file}')).body
        if isinstance(node, ast.Assign) and node.targets[0].id.endswith('ARGUMENTS')
        for entry in node.value.elts
    ]
    return {name.value: text.value for name, text, _ in entries if isinstance(text, ast.Constant)}


@pytest.mark.parametrize('file', ['sim.launch.py', 'robot.launch.py'])
def test_defaults_of_launch_arguments(file):
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


def test_profile_keys():
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


def test_platform_keys_and_names():
    text = section(page('docs/formats.md'), 'platform.json')
    table = text.partition('Built in')[0]
    described = {cells[0].strip('`'): cells[2].strip('`') for cells in rows(table)}
    assert list(described) == [field.name for field in dataclasses.fields(Platform)]
    for field in dataclasses.fields(Platform):
        missing = field.default is dataclasses.MISSING
        shown = {True: 'true', False: 'false', None: 'null'}.get(field.default, str(field.default))
        assert described[field.name] == ('required' if missing else shown), field.name
    header = text.partition('Built in')[2].split('\n\n')[1].splitlines()[0]
    assert re.findall(r'`(\w+)`', header) == list(PLATFORMS)


def test_manifest_keys():
    text = section(page('docs/formats.md'), 'Manifest')
    assert set(names(text)) == {field.name for field in dataclasses.fields(Manifest)}
    described = {cells[0].strip('`'): cells[1] for cells in rows(text)}
    for key, kind in (('layers', LayerEntry), ('options', MethodOptions)):
        fields = [field.name for field in dataclasses.fields(kind)]
        assert re.findall(r'`(\w+)`', described[key]) == fields


def form_examples():
    """A layer of each form with every part and option that the form has."""
    signs, index = torch.zeros(2, 1, dtype=torch.uint8), torch.arange(2, dtype=torch.int16)
    scale, span = torch.ones(2).half(), torch.zeros(2)
    shared = {
        'columns': 2, 'row_scales': scale, 'row_scales_span': span, 'column_scale': scale,
        'column_scale_span': span, 'permutation': index,
    }  # fmt: skip
    part = GroupedPart(2, signs[None], (0, 1), scale.reshape(1, 2, 1), index, permutation=index)
    return (
        SignPlaneLayer(planes=signs, tile_planes=signs[0], row_count=2, **shared),
        SignPlaneLayer(planes=signs, **shared),
        FactoredLayer(
            outer=signs, inner=signs, inner_scales=scale, inner_scales_span=span, **shared
        ),
        GroupedLayer(2, {'part': part}, 1.0, signs.char(), scale, index),
    )


@pytest.mark.parametrize('layer', form_examples(), ids=lambda layer: layer.form)
def test_parts_and_options_of_the_forms(layer):
    text = section(page('docs/formats.md'), f'Form {layer.form}')
    described = {name.replace('{part}', 'part') for name in names(text)}
    found = set(layer.tensors())
    assert found == described - ({'tile_planes'} - found)
    options = text.partition('`form_options`:')[2].partition('\n\n')[0].partition('. ')[0]
    assert set(layer.options()) <= set(re.findall(r'`(\w+)`', options))


def test_every_form_is_described():
    headings = re.findall(r'^### Form (\w+)$', page('docs/formats.md'), re.MULTILINE)
    assert headings == list(FORMS)


def test_worked_example_of_the_quantized_layer_holds():
    examples = [block for kind, block in FENCE.findall(page('docs/formats.md')) if kind == 'python']
    assert len(examples) == 1
    exec(compile(examples[0], 'docs/formats.md', 'exec'), {})


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_exist(path):
    for file, name in re.findall(
        r'`(test/[\w/]+\.py)(?:::(\w+))?`', path.read_text(encoding='utf-8')
    ):
        assert (ROOT / file).is_file(), file
        assert not name or re.search(rf'^def {name}\(', page(file), re.MULTILINE), name


def test_import_table_is_the_rule():
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
def test_options_of_methods(method):
    table = rows(section(page('docs/quantization.md'), f'Options of {method.name}'))
    assert [cells[:3] for cells in table] == option_table(type(method.presets['default']))
    assert all(cells[3] for cells in table)


def test_options_of_the_probe():
    table = rows(section(page('docs/quantization.md'), 'Options of the probe'))
    assert [cells[:3] for cells in table] == option_table(ProbeOptions)
    assert all(cells[3] for cells in table)


def test_presets():
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
def test_values_of_open_points(heading, presets):
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


def test_command_line_options_of_quantize():
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


def test_messages_are_those_of_the_code():
    texts = list(source_texts())
    table = rows(section(page('docs/quantization.md'), 'Messages and fixes'))
    assert len(table) > 20
    for cells in table:
        message = cells[0].strip('`')
        assert any(message in text for text in texts), message


def test_components_of_a_network():
    table = rows(section(page('docs/quantization.md'), 'Components'))
    assert [cells[0].strip('`') for cells in table] == list(COMPONENTS)
