# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from hbvla_ros import __version__
from hbvla_ros.cli.main import main
from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization import action_benchmark, action_results
from hbvla_ros.quantization.action_benchmark import (
    DEFAULT_METHODS,
    DEFAULT_PROBES,
    ActionBenchmark,
    ActionSpec,
    Combination,
)
from hbvla_ros.quantization.action_results import PROBE_COLUMNS, ActionResult
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform

FAST = 'signplane:2:rounds=1:cycles=0'


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """These matrices are too small to share."""
    torch.set_num_threads(1)


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """Three recorded episodes of 6 frames that fit the tiny checkpoint."""
    random = np.random.default_rng(5)
    folder = tmp_path / 'episodes'
    folder.mkdir()
    for number in range(3):
        arrays = {
            'proprioception': random.uniform(-2, 2, (6, 14)).astype(np.float32),
            'instruction': np.array('put the cube'),
        }
        for camera in ('cam_high', 'cam_low'):
            images = random.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
            jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(image)) for image in images]
            arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(jpegs), dtype=np.uint8)
            arrays[f'offset_{camera}'] = np.cumsum([0, *(len(jpeg) for jpeg in jpegs)])
        np.savez(folder / f'episode_{number}.npz', **arrays)
    return folder


@pytest.fixture
def bench(tiny_checkpoint: Path, episodes: Path):
    """Run ``hbvla bench actions`` on the tiny checkpoint."""
    common = ['bench', 'actions', str(tiny_checkpoint), '--calibration', str(episodes)]
    common += ['--frames', '4', '--held-out', '3']
    return lambda *arguments: main([*common, *arguments])


def test_table(bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench('--methods', 'rtn', FAST, '--probes', 'action2', 'none') == 0
    header, _, rtn, ours = capsys.readouterr().out.splitlines()
    assert header == '| method | stored bits | none | action 2 |'
    # One that makes the same of every Hessian runs once.
    assert rtn.startswith('| `rtn` | ') and rtn.endswith(' | - |')
    cells = ours.strip('| ').split(' | ')
    assert cells[0] == f'`{FAST}`' and 2 < float(cells[1]) < 4
    assert float(cells[2]) > 0 and float(cells[3]) > 0 and cells[2] != cells[3]


def test_figures_are_those_of_the_pipeline(
    bench, tiny_checkpoint: Path, episodes: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / 'new' / 'actions.json'
    arguments = ['--methods', FAST, '--probes', 'action1', '--seeds', '3', '--json']
    assert bench(*arguments, '--out', str(out)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ['actions.json']
    checkpoint = Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))
    data = read_calibration(episodes, checkpoint, 4, 3, 3)
    request = Request(
        bits=2.0, seed=3, probe='action', settings=('rounds=1', 'cycles=0'),
        probe_settings=('power=1',),
    )  # fmt: skip
    manifest = quantize_checkpoint(checkpoint, request, tmp_path / 'q', data).manifest
    (result,) = printed['results']
    assert result['action_error'] == manifest.action_error
    assert result['action_error']['frames'] == 3
    assert result['stored_bits'] == pytest.approx(manifest.stored_bits_per_weight, rel=1e-3)
    assert result['nominal_bits'] == 2
    assert result['folder_bytes'] == sum(p.stat().st_size for p in (tmp_path / 'q').iterdir())
    assert result['seconds'] > 0
    assert (result['method'], result['probe'], result['seed']) == (FAST, 'action1', 3)
    assert result['asked']['options']['rounds'] == 1 and result['asked']['probe']['power'] == 1
    assert printed['checkpoint'] == checkpoint.identity
    assert printed['calibrations'] == {'3': data.description}
    assert result['calibration'] == data.description['digest']
    assert printed['versions']['hbvla_ros'] == __version__


def test_refined(bench, capsys: pytest.CaptureFixture[str]) -> None:
    refined = f'{FAST}+refine=3'
    assert bench('--methods', FAST, refined, '--probes', 'none', '--json') == 0
    plain, tuned = json.loads(capsys.readouterr().out)['results']
    assert (plain['method'], tuned['method']) == (FAST, refined)
    assert (plain['asked']['refine'], tuned['asked']['refine']) == (0, 3)
    assert plain['stored_bits'] == tuned['stored_bits']
    assert plain['action_error'] != tuned['action_error']


def test_finished_combinations_are_kept_and_taken_over(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'actions.json'
    real = action_benchmark.quantize_checkpoint
    runs: list[str] = []

    def failing(checkpoint, request, *rest):
        if len(runs) == 2:
            raise HbvlaError('disk full')
        runs.append(request.probe)
        return real(checkpoint, request, *rest)

    monkeypatch.setattr(action_benchmark, 'quantize_checkpoint', failing)
    arguments = ['--methods', 'rtn', FAST, '--probes', 'none', 'block', '--out', str(out)]
    assert bench(*arguments) == 2
    assert f'hbvla: error: {FAST}: disk full' in capsys.readouterr().err
    first = json.loads(out.read_text())['results']
    assert [(one['method'], one['probe']) for one in first] == [('rtn', 'none'), (FAST, 'none')]

    assert bench(*arguments) == 2
    assert 'exists already; add --resume' in capsys.readouterr().err
    runs.clear()
    assert bench(*arguments, '--resume') == 0
    assert runs == ['parity']
    content = json.loads(out.read_text())
    assert content['results'][:2] == first and len(content['results']) == 3

    # Results of methods not asked for this time stay; changed options are not taken over.
    runs.clear()
    assert bench('--methods', f'{FAST}:damping=0.3', '--probes', 'none', '--out', str(out),
                 '--resume') == 0  # fmt: skip
    assert runs == ['none'] and len(json.loads(out.read_text())['results']) == 4
    assert capsys.readouterr().out.count(FAST) == 3  # in a table of two lines and one of three

    assert bench(*arguments, '--resume', '--dtype', 'bfloat16') == 2
    assert "another dtype: 'float32' instead of 'bfloat16'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--methods', 'quantum'], "method 'quantum' is unknown"),
        (['--methods', 'hbllm:1.05'], 'hbllm:1.05: --bits 1.05: the size of hbllm is fixed'),
        (['--methods', 'rtn+refine=0'], '--methods rtn+refine=0: after + stands refine=STEPS'),
        (['--methods', 'rtn+prune=3'], '--methods rtn+prune=3: after + stands refine=STEPS'),
        (['--methods', 'rtn', 'rtn'], '--methods: name each once'),
        (['--probes', 'action3'], '--probes action3: use some of none, block,'),
        (['--seeds', '-1'], 'seed -1'),
        (['--frames', '0'], '--frames 0: at least 1'),
        (['--held-out', '0'], '--held-out 0: at least 1'),
        (['--calibration', '/nowhere'], '/nowhere: no such folder'),
        (['--resume'], '--resume: name the file'),
        (['--resume', '--out', '/nowhere.json'], '/nowhere.json: no such file'),
        (['--device', 'abacus'], 'device abacus: not available here'),
        (['--out', '.'], '.: is a folder; name a file'),
    ],
)
def test_bad_input_is_one_line(
    bench, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*arguments) == 2
    output = capsys.readouterr()
    last = output.err.splitlines()[-1]
    assert last.startswith('hbvla: error: ') and message in last
    assert output.out == ''


def test_a_file_of_something_else_is_refused(
    bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'other.json'
    for text, message in (
        ('{', 'not readable'),
        ('[]', 'holds no results'),
        ('{"benchmark": "layers"}', "another benchmark: 'layers'"),
    ):
        out.write_text(text)
        assert bench('--out', str(out), '--resume', '--methods', 'rtn') == 2
        assert message in capsys.readouterr().err
        assert out.read_text() == text


def test_default_combinations(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))
    specs = [ActionSpec.parse(text) for text in DEFAULT_METHODS]
    benchmark = ActionBenchmark(checkpoint, specs)
    benchmark.check()
    # rtn and bivlm do not look at the inputs and run once.
    once = sum(text.partition(':')[0] in ('rtn', 'bivlm') for text in DEFAULT_METHODS)
    assert once >= 1
    assert len(benchmark.combinations()) == once + (len(specs) - once) * len(DEFAULT_PROBES)


def test_probes_are_those_of_the_paper_and_ours() -> None:
    spec = ActionSpec.parse('hbvla')
    plans = {p: Combination(spec, p, 0).request().resolve().probe for p in PROBE_COLUMNS}
    assert plans['none'].kind == 'none'
    assert (plans['block'].kind, plans['block'].power, plans['block'].floor) == ('block', 1, 0)
    assert plans['block'].layers == 'attention' and not plans['block'].vision
    assert plans['block-all'].layers == 'all' and plans['block-all'].floor > 0
    for power in (1, 2):
        assert (plans[f'action{power}'].kind, plans[f'action{power}'].power) == ('action', power)


def test_seeds_are_averaged() -> None:
    def result(seed: int, error: float, bits: float) -> ActionResult:
        return ActionResult(
            'rtn', 'none', seed, {}, '', bits, 1.0, 1, {'relative_rms': error}, 0.0
        )  # fmt: skip

    table = action_results.markdown_table([result(0, 0.1, 1.5), result(1, 0.3, 1.25)])
    assert table.splitlines()[-1] == '| `rtn` | 1.500 | 0.2000 |'
    with pytest.raises(HbvlaError, match='hold out more frames'):
        _ = ActionResult('rtn', 'none', 0, {}, '', 1, 1, 1, {'relative_rms': None}, 0).relative_rms


def test_merged_keeps_the_order_of_the_file() -> None:
    def result(method: str, seconds: float) -> ActionResult:
        return ActionResult(method, 'none', 0, {}, '', 1, 1, 1, {'relative_rms': 0.1}, seconds)

    known = [result('rtn', 1), result('hbllm', 1)]
    found = [result('hbvla', 2), result('rtn', 2)]
    merged = action_results.merged(known, found)
    assert [(one.method, one.seconds) for one in merged] == [
        ('rtn', 2), ('hbllm', 1), ('hbvla', 2),
    ]  # fmt: skip
