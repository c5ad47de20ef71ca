# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The import rule of the design: who may import whom, and what stays out of the core."""

import ast
from pathlib import Path

import pytest

import hbvla_ros

ROOT = Path(hbvla_ros.__file__).parent
LEAVES = {'errors', 'data', 'resources', 'drawing', '__init__'}
# part -> the parts of ours it may import besides the leaves and itself
ALLOWED = {
    'vla': set(),
    'packed': set(),
    'control': set(),
    'quantization': {'vla', 'packed'},
    'policy': {'vla', 'packed'},
    'quantizing': {'vla', 'packed', 'quantization', 'recordings'},
    'recordings': {'control'},
    'sim': {'control'},
    'training': {'vla', 'sim', 'recordings'},
    'evaluation': {'policy', 'control', 'sim', 'recordings'},
    'nodes': {'policy', 'quantizing', 'control', 'sim', 'evaluation', 'vla', 'packed',
              'quantization', 'recordings'},
    'cli': {'policy', 'quantizing', 'control', 'sim', 'evaluation', 'nodes', 'vla', 'packed',
            'quantization', 'training', 'recordings'},
}  # fmt: skip
# Starting the nodes is the one thing evaluation needs of them, lazily and by name.
TORCH = {'vla', 'packed', 'quantization', 'training', 'policy'}
ROS = {'rclpy', 'sensor_msgs', 'std_msgs', 'std_srvs', 'trajectory_msgs', 'diagnostic_msgs',
       'lifecycle_msgs', 'rosgraph_msgs', 'rcl_interfaces', 'builtin_interfaces',
       'cv_bridge'}  # fmt: skip


def imported_names(path):
    """Every module a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix('.py')


FILES = sorted(ROOT.rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_rule(path):
    part = part_of(path)
    for name in imported_names(path):
        top, *rest = name.split('.')
        if top == 'hbvla_ros' and rest and (ROOT / rest[0]).with_suffix('.py').exists():
            other = rest[0]
        elif top == 'hbvla_ros' and rest and (ROOT / rest[0]).is_dir():
            other = rest[0]
        else:
            if top == 'torch':
                assert part in TORCH, f'{part} imports torch'
            if top in ROS:
                assert part == 'nodes', f'{part} imports {top}'
            continue
        if other in LEAVES or other == part:
            continue
        assert part not in LEAVES, f'leaf {part} imports {other}'
        assert other in ALLOWED[part], f'{part} imports {other}'


def test_the_rule_covers_every_part():
    assert {part_of(path) for path in FILES} <= set(ALLOWED) | LEAVES


def test_core_imports_without_ros_torch_or_mujoco():
    import subprocess
    import sys

    code = (
        'import sys\n'
        'import hbvla_ros.cli.main as m, hbvla_ros.control.clock, hbvla_ros.control.safety\n'
        'm.build_parser()\n'
        "print([n for n in ('torch', 'rclpy', 'mujoco') if n in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == '[]', result.stdout + result.stderr
