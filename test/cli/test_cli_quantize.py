# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hbvla_ros.cli import info, quantize
from hbvla_ros.cli.main import main

GOLDEN = Path(__file__).parents[1] / 'golden' / 'openvla_oft'


def test_quantize_then_info(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    arguments = ['quantize', str(tiny_checkpoint), '--method', 'signplane', '--bits', '1']
    assert main([*arguments, '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'vision towers' in printed and 'down_proj' in printed
    assert 'stored bits per weight (1 nominal)' in printed
    assert 'times smaller' in printed

    assert main(['info', str(out), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['method'] == 'signplane' and report['nominal_bits_per_weight'] == 1
    assert 1 < report['stored_bits_per_weight'] < 2.2
    sizes = [path.stat().st_size for path in out.iterdir()]
    assert report['total_bytes'] == sum(sizes)
    assert report['source_bytes'] == sum(p.stat().st_size for p in tiny_checkpoint.iterdir())
    assert sum(row['bytes'] for row in report['components']) == report['total_bytes']

    assert main(['info', str(out)]) == 0
    assert f'{report["stored_bits_per_weight"]:.4f} stored bits' in capsys.readouterr().out


def test_info_of_full_precision(capsys: pytest.CaptureFixture[str]) -> None:
    folder = GOLDEN / 'aloha_film_l1'
    assert main(['info', str(folder), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['stored_bits_per_weight'] == 16 and report['method'] == 'none'
    total = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    assert report['total_bytes'] == report['source_bytes'] == total
    heads = next(row for row in report['components'] if row['name'] == 'heads')
    assert heads['bytes'] > 0
    assert main(['info', str(folder)]) == 0
    assert '16.0000 stored bits' in capsys.readouterr().out


def test_platform_is_taken_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(GOLDEN / 'libero_l1'), '--method', 'rtn']
    arguments += ['--out', str(tmp_path / 'out')]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith('hbvla: error: ')
    assert not (tmp_path / 'out').exists()
    assert main([*arguments, '--platform', 'libero']) == 0
    assert json.loads((tmp_path / 'out' / 'platform.json').read_text())['name'] == 'libero'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--bits', '1.05'], 'one sign plane with its scales takes'),
        (['--bits', '0.5'], 'one sign plane with its scales takes'),
        (['--method', 'rtn', '--bits', '4'], 'rtn takes 1, 2 or 3'),
        (['--method', 'best'], "method 'best' is unknown"),
        (['--calibration', '/nowhere'], '/nowhere: no such folder'),
        (['--frames', '0'], '--frames 0'),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(tmp_path.rglob('*'))
    assert main(['quantize', str(tiny_checkpoint), '--out', str(tmp_path / 'out'), *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('hbvla: error: ') and message in lines[-1]
    assert sorted(tmp_path.rglob('*')) == before


def test_existing_folder_is_kept_unless_forced(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(tiny_checkpoint), '--method', 'rtn', '--out', str(tmp_path / 'o')]
    assert main(arguments) == 0
    stamp = (tmp_path / 'o' / 'hbvla.json').stat().st_mtime_ns
    assert main(arguments) == 2
    assert 'exists already' in capsys.readouterr().err
    assert (tmp_path / 'o' / 'hbvla.json').stat().st_mtime_ns == stamp
    assert main([*arguments, '--force', '--bits', '2']) == 0
    assert main(['quantize', str(tmp_path / 'o'), '--out', str(tmp_path / 'p')]) == 2
    assert 'is quantized already' in capsys.readouterr().err


def test_info_of_damaged_and_foreign_folders(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    assert main(['quantize', str(tiny_checkpoint), '--method', 'rtn', '--out', str(out)]) == 0
    content = bytearray((out / 'model.safetensors').read_bytes())
    content[-1] ^= 255
    (out / 'model.safetensors').write_bytes(content)
    assert main(['info', str(out)]) == 2
    assert 'model.safetensors: digest differs in tensor' in capsys.readouterr().err
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert main(['info', str(empty)]) == 2
    assert 'neither hbvla.json nor model*.safetensors' in capsys.readouterr().err


def test_interrupt_leaves_nothing_behind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A real Ctrl-C at a real process, while it writes."""
    before = sorted(tmp_path.rglob('*'))
    script = (
        'import sys, time\n'
        'from hbvla_ros.packed import writer\n'
        'def slow(path, tensors):\n'
        '    path.write_text("half")\n'
        '    print("writing", flush=True)\n'
        '    time.sleep(60)\n'
        'writer._save = slow\n'
        'from hbvla_ros.cli.main import main\n'
        'sys.exit(main(sys.argv[1:]))\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', script, 'quantize', str(tiny_checkpoint), '--method', 'rtn',
         '--out', str(tmp_path / 'out')],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == 'writing\n'
    assert sorted(tmp_path.rglob('*')) != before
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert sorted(tmp_path.rglob('*')) == before


def test_help_is_fast_and_names_the_options() -> None:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    quantize.add_parser(subparsers)
    info.add_parser(subparsers)
    started = time.monotonic()
    text = subparsers.choices['quantize'].format_help()
    assert time.monotonic() - started < 1.0
    for option in ('--method', '--bits', '--calibration', '--probe', '--force', '--seed'):
        assert option in text
