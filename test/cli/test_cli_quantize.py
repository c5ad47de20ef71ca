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
    arguments = ['quantize', str(tiny_checkpoint), '--bits', '1', '--set', 'cycles=0']
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
        (['--bits', '0.5'], 'ask for --bits 1.'),
        (['--method', 'hbllm', '--bits', '1.05'], 'the size of hbllm is fixed by the method'),
        (['--method', 'rtn', '--bits', '4'], 'rtn takes 1, 2 or 3'),
        (['--method', 'best'], "method 'best' is unknown; use one of these: signplane: balanced"),
        (['--calibration', '/nowhere'], '/nowhere: no such folder'),
        (['--frames', '0'], '--frames 0'),
        (['--held-out', '-1'], '--held-out -1: at least 0'),
        (['--components', 'vision,arm'], '--components arm: is unknown; use some of'),
        (['--components', ''], '--components: name at least one of'),
        (['--preset', 'other'], '--preset other: signplane has default'),
        (['--set', 'rounds'], '--set rounds: signplane takes NAME=VALUE of balance,'),
        (['--probe-set', 'floor=2'], '--probe-set: floor 2.0: use 0 to 1'),
        (['--device', 'cuda:99'], '--device cuda:99: cannot be used'),
        (['--cache-memory', '-1'], '--cache-memory -1: must be a number of gigabytes'),
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


def test_a_stopped_run_goes_on_to_the_same_bytes(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real signal at a real process, after a layer."""
    script = (
        'import sys, time\n'
        'from hbvla_ros.quantization.block_quantizer import LayerQuantizer\n'
        'tell = LayerQuantizer.tell\n'
        'def slow(self, name):\n'
        '    tell(self, name)\n'
        '    if name.endswith("featurizer.blocks.1.attn.qkv"):\n'
        '        print("waiting", flush=True)\n'
        '        time.sleep(600)\n'
        'LayerQuantizer.tell = slow\n'
        'from hbvla_ros.cli.main import main\n'
        'sys.exit(main(sys.argv[1:]))\n'
    )
    command = ['quantize', str(tiny_checkpoint), '--method', 'rtn', '--out']
    out = tmp_path / 'out'
    process = subprocess.Popen(
        [sys.executable, '-c', script, *command, str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == 'waiting\n'
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 130
    line = 'hbvla: stopped after 5 of 30 layers; go on with the same command and --resume'
    assert process.stderr.read().strip().splitlines()[-1] == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out.partial', 'tiny']
    for arguments, message in (
        ([], 'out.partial: is left of an interrupted run; add --resume'),
        (['--resume', '--bits', '2'], 'out.partial: was begun with other bits; give the same'),
    ):
        assert main([*command, str(out), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main([*command, str(out), '--resume']) == 0
    assert not (tmp_path / 'out.partial').exists()
    assert main([*command, str(tmp_path / 'whole')]) == 0
    for path in (tmp_path / 'whole').iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_calibrated_run_writes_a_report(
    tiny_checkpoint: Path,
    tmp_path: Path,
    episodes_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / 'out'
    arguments = [
        '--calibration',
        str(episodes_folder),
        '--frames',
        '6',
        '--held-out',
        '4',
        '--probe',
    ]
    arguments += ['block', '--method', 'hbvla', '--preset', 'parity', '--set', 'norm=l1']
    arguments += ['--components', 'language,head', '--cache-memory', '0', '--dtype', 'bfloat16']
    assert main(['quantize', str(tiny_checkpoint), '--out', str(out), *arguments]) == 0
    manifest = json.loads((out / 'hbvla.json').read_text())
    assert manifest['preset'] == 'parity' and manifest['options']['norm'] == 'l1'
    assert manifest['components'] == ['language', 'head']
    assert manifest['calibration']['probe'] == 'block'
    assert manifest['action_error']['frames'] == 4
    assert {name.partition('.')[0] for name in manifest['layers']} == {
        'language_model', 'action_head', 'proprio_projector',
    }  # fmt: skip
    report = json.loads((out / 'report.json').read_text())
    assert report['action_error'] == manifest['action_error']
    assert len(report['token_importance']) == 3
    # Whoever removes the report has a valid folder still.
    for name in ('report.html', 'report.json'):
        assert name not in manifest['files']
        (out / name).unlink()
    assert main(['info', str(out)]) == 0
    assert 'stored bits' in capsys.readouterr().out


def test_help_names_the_options_and_the_methods() -> None:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    quantize.add_parser(subparsers)
    info.add_parser(subparsers)
    text = subparsers.choices['quantize'].format_help()
    options = (
        '--method --bits --calibration --probe --force --seed --base --resume --preset --set '
        '--components --held-out --probe-set --device --dtype --cache-memory'
    )
    for option in options.split():
        assert option in text
    words = ' '.join(text.split())
    assert set(SUMMARIES) == set(METHODS)
    for name, summary in SUMMARIES.items():
        assert f'{name}: {summary}' in words
