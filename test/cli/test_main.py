# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Disks that refuse: always one line with the path and the reason, and exit status 2."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hbvla_ros.cli import demos, info
from hbvla_ros.cli.main import main
from hbvla_ros.cli.output import check_file, check_writable
from hbvla_ros.errors import HbvlaError


def failing(error: OSError):
    def run(_options: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (PermissionError(errno.EACCES, 'Permission denied', '/a/b'), '/a/b: Permission denied'),
        (IsADirectoryError(errno.EISDIR, 'Is a directory', '/a'), '/a: Is a directory'),
        # These do not say where; what is written without --out goes to standard output.
        (OSError(errno.ENOSPC, 'No space left'), 'standard output: No space left'),
        (OSError(errno.EIO, 'Input/output error'), 'hbvla info: Input/output error'),
        (OSError('something else'), 'hbvla info: something else'),
    ],
)
def test_an_error_of_the_system_is_one_line(
    error: OSError, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, 'run', failing(error))
    assert main(['info', 'folder']) == 2
    assert capsys.readouterr().err == f'hbvla: error: {line}\n'


def test_a_nameless_error_names_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demos, 'run', failing(OSError(errno.ENOSPC, 'No space left on device')))
    assert main(['demos', '--out', '/data/x', '--episodes', '1']) == 2
    assert capsys.readouterr().err == 'hbvla: error: /data/x: No space left on device\n'


def test_a_folder_where_a_file_should_be(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_checkpoint / 'action_head--7_checkpoint.pt'
    path.unlink()
    path.mkdir()
    for arguments in (['info'], ['quantize', '--out', str(tiny_checkpoint / 'out')]):
        assert main([arguments[0], str(tiny_checkpoint), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith('hbvla: error: ') and str(path) in error
        assert error.count('\n') == 1


def test_standard_output_on_a_full_disk(tiny_checkpoint: Path) -> None:
    command = [sys.executable, '-m', 'hbvla_ros.cli.main', 'info', str(tiny_checkpoint), '--json']
    with open('/dev/full', 'wb') as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == 'hbvla: error: standard output: No space left on device\n'


def test_a_reader_that_goes_away_is_no_error(tiny_checkpoint: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, '-m', 'hbvla_ros.cli.main', 'info', str(tiny_checkpoint), '--json']
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('command', ['quantize', 'demo'])
def test_output_that_cannot_be_written_is_refused_before_the_work(
    command: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').touch()
    out = tmp_path / 'file' / 'below' / 'out'
    named = [str(tiny_checkpoint)]
    if command == 'demo':
        named.insert(0, '--checkpoint')
    assert main([command, *named, '--out', str(out)]) == 2
    error = capsys.readouterr().err
    assert error == f'hbvla: error: {out}: cannot write in {tmp_path / "file"}: Not a directory\n'


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / 'new' / 'out')
    check_file(tmp_path / 'new' / 'result.json')
    assert not list(tmp_path.iterdir())
    with pytest.raises(HbvlaError, match='is a folder; name a file'):
        check_file(tmp_path)
