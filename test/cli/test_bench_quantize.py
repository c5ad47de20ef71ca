# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from hbvla_ros import __version__
from hbvla_ros.cli.main import main

SMALL = ['--decoder-layers', '1', '--tower-blocks', '1', '--width-divisor', '64',
         '--cameras', '1', '--frames', '1', '--method', 'rtn', '--probe', 'none']  # fmt: skip


def test_json_in_print_and_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / 'temporary'
    place.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(place))
    out = tmp_path / 'new' / 'quantize.json'
    assert main(['bench', 'quantize', *SMALL, '--json', '--out', str(out)]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert result == json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ['quantize.json']
    assert result['benchmark'] == 'quantize' and result['versions']['hbvla_ros'] == __version__
    assert result['shape']['decoder_layers'] == 1 and result['seconds'] > 0
    assert 'quantizing ...' in output.err.splitlines()
    assert not list(place.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--decoder-layers', '33'], '--decoder-layers 33: use 1 to 32'),
        (['--method', 'quantum'], "method 'quantum' is unknown"),
        (['--device', 'abacus'], 'device abacus: not available here'),
        (['--seed', '-1'], 'seed -1: must be'),
        (['--out', '.'], '.: is a folder; name a file'),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['bench', 'quantize', *arguments]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f'hbvla: error: {message}') and output.err.count('\n') == 1
    assert output.out == ''
