# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hbvla_ros.cli import info, quantize
from hbvla_ros.cli.main import main
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.summaries import SUMMARIES

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
    assert report['method'] == 'none'
    total = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    assert report['total_bytes'] == report['source_bytes'] == total
    assert sum(row['bytes'] for row in report['components']) == total
    rows = {row['name']: row for row in report['components']}
    assert rows['language model']['bits_per_parameter'] == 16
    # The action head is bfloat16, the projector of the proprioception float32.
    wide = torch.load(folder / 'proprio_projector--1_checkpoint.pt', weights_only=True)
    half = torch.load(folder / 'action_head--1_checkpoint.pt', weights_only=True)
    counts = [sum(tensor.numel() for tensor in side.values()) for side in (wide, half)]
    assert rows['heads']['parameters'] == sum(counts)
    assert rows['heads']['bytes'] == 4 * counts[0] + 2 * counts[1]
    # FiLM layers are float32 in the side file of the vision stack.
    assert rows['vision towers']['bits_per_parameter'] == pytest.approx(16.822, abs=1e-3)
    assert 16 < report['stored_bits_per_weight'] < rows['vision towers']['bits_per_parameter']
    assert main(['info', str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f'{report["stored_bits_per_weight"]:.4f} stored bits' in printed
    assert '16.822' in printed and 'as stored' in printed


def test_info_of_a_damaged_side_file(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['info', str(tiny_checkpoint)]) == 0
    assert '16.0000 stored bits' in capsys.readouterr().out
    path = tiny_checkpoint / 'action_head--7_checkpoint.pt'
    path.write_bytes(path.read_bytes()[:500])
    assert main(['info', str(tiny_checkpoint)]) == 2
    error = capsys.readouterr().err
    assert f'{path}: truncated or not a state dict' in error and error.count('\n') == 1


def test_source_bytes_are_what_info_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files in subfolders included: this folder has an adapter beside its merged shards."""
    folder, out = GOLDEN / 'libero_film_l1', tmp_path / 'out'
    arguments = ['--method', 'rtn', '--platform', 'libero', '--out', str(out)]
    assert main(['quantize', str(folder), *arguments]) == 0
    capsys.readouterr()
    totals = []
    for place, key in ((folder, 'total_bytes'), (out, 'source_bytes')):
        assert main(['info', str(place), '--json']) == 0
        totals.append(json.loads(capsys.readouterr().out)[key])
    assert totals[0] == totals[1]
    source = json.loads((out / 'hbvla.json').read_text())['source']
    assert 'lora_adapter/adapter_model.safetensors' in source['files']


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
        (['--method', 'best'], "method 'best' is unknown; use one of these: signplane: balanced"),
        (['--calibration', '/nowhere'], '/nowhere: no such folder'),
        (['--frames', '0'], '--frames 0'),
        (['--seed', '-1'], 'seed -1: must be 0 to'),
        (['--seed', '-1', '--calibration', '/nowhere'], 'seed -1: must be 0 to'),
        (['--base', '/nowhere/base', '--calibration', '/nowhere'], '/nowhere: no such folder'),
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


def test_help_names_the_options_and_the_methods() -> None:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    quantize.add_parser(subparsers)
    info.add_parser(subparsers)
    text = subparsers.choices['quantize'].format_help()
    for option in ('--method', '--bits', '--calibration', '--probe', '--force', '--seed', '--base'):
        assert option in text
    words = ' '.join(text.split())
    assert set(SUMMARIES) == set(METHODS)
    for name, summary in SUMMARIES.items():
        assert f'{name}: {summary}' in words
