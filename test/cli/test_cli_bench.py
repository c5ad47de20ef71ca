# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbvla_ros import __version__
from hbvla_ros.cli.main import main

SMALL = ['--rows', '48', '--columns', '64', '--tokens', '300', '--seeds', '0,2']


def bench(*arguments: str) -> int:
    return main(['bench', 'layers', *SMALL, *arguments])


def test_layers_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench('--methods', 'rtn', 'signplane:2', '--kinds', 'attn_vo', 'colclust') == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '| method | stored bits | attn_vo | colclust | geometric mean |'
    assert [line.split(' | ')[0] for line in lines[2:]] == ['| `rtn`', '| `signplane:2`']


def test_layers_prints_and_writes_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'layers.json'
    assert bench('--methods', 'rtn', '--kinds', 'attn_qk', '--json', '--out', str(out)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ['layers.json']
    assert (printed['rows'], printed['columns'], printed['tokens']) == (48, 64, 300)
    assert printed['seeds'] == [0, 2] and printed['kinds'] == ['attn_qk']
    assert printed['versions']['hbvla_ros'] == __version__ and 'torch' in printed['versions']
    (method,) = printed['methods']
    assert method['method'] == 'rtn' and method['errors'].keys() == {'attn_qk'}
    assert [layer['seed'] for layer in method['layers']] == [0, 2]
    assert method['stored_bits'] == pytest.approx(1 + 16 / 64)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--methods', 'quantum'], "method 'quantum' is unknown"),
        (['--kinds', 'attn'], '--kinds attn: use some of'),
        (['--device', 'abacus'], 'device abacus: not available here'),
        (['--out', '.'], '.: is a folder; name a file'),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f'hbvla: error: {message}') and output.err.count('\n') == 1
    assert output.out == ''


@pytest.mark.parametrize('arguments', [['bench'], ['bench', 'layers', '--seeds', '1,x']])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert 'usage: hbvla bench' in capsys.readouterr().err
