# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Interrupted runs: what they leave, and that going on gives the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed import writer
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.quantization import activations, resume
from hbvla_ros.quantization.block_quantizer import LayerQuantizer
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.pipeline import Request, SilentProgress, quantize_checkpoint
from hbvla_ros.quantization.report import result_files
from hbvla_ros.quantizing import read_calibration
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import resolve_platform

FAST = SignPlaneOptions(rounds=1, cycles=0)


class Interrupt(SilentProgress):
    """Presses Ctrl-C after so many layers."""

    def __init__(self, layers: int) -> None:
        self.left = layers

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        if entry is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint, resolve_platform(tiny_checkpoint))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    'request_',
    [
        Request(options=FAST, bits=3.001),
        Request('hbllm', probe='block', probe_settings=('provisional=rtn',), cache_bytes=0),
    ],
    ids=['budget', 'block'],
)
def test_going_on_gives_the_same_bytes_and_repeats_no_layer(
    request_: Request,
    checkpoint: Checkpoint,
    episodes_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = read_calibration(episodes_folder, checkpoint, 8, 0, held_out=4)
    report = result_files if request_.probe == 'block' else None

    def run(name: str, layers: int = 0, **options: Any) -> None:
        quantize_checkpoint(
            checkpoint, request_, tmp_path / name, data, Interrupt(layers),
            report=report, **options,
        )  # fmt: skip

    run('whole')
    done: list[str] = []
    quantize = LayerQuantizer.quantize

    def count(self: LayerQuantizer, name: str, *args: Any) -> None:
        done.append(name)
        quantize(self, name, *args)

    monkeypatch.setattr(LayerQuantizer, 'quantize', count)
    # In the middle of a tower's block, and after the second layer of a decoder layer.
    for layers, again in ((6, False), (18, True)):
        with pytest.raises(KeyboardInterrupt):
            run('out', layers, resume=again)
        assert not (tmp_path / 'out').exists() and (tmp_path / 'out.partial').is_dir()
    run('out', resume=True)
    assert len(done) == len(set(done)) == 30
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')
    assert ('report.html' in contents(tmp_path / 'out')) == (report is not None)
    assert not (tmp_path / 'out.partial').exists()


def stop(checkpoint: Checkpoint, out: Path, request: Request) -> None:
    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(checkpoint, request, out, progress=Interrupt(5))


def test_a_damaged_file_is_made_again(checkpoint: Checkpoint, tmp_path: Path) -> None:
    request = Request('rtn')
    quantize_checkpoint(checkpoint, request, tmp_path / 'whole')
    stop(checkpoint, tmp_path / 'out', request)
    first, second, *_ = sorted((tmp_path / 'out.partial').glob('*.safetensors'))
    first.write_bytes(first.read_bytes()[:-1] + b'x')
    second.with_suffix('.json').write_text('{"half')
    quantize_checkpoint(checkpoint, request, tmp_path / 'out', resume=True)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


def test_another_request_cannot_go_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    stop(checkpoint, out, Request(options=FAST))
    kept = contents(tmp_path / 'out.partial')
    for request, other in (
        (Request(options=FAST, seed=1), r'options \(seed\)'),
        (Request('rtn'), 'method, options'),
        (Request(options=FAST, components=('vision',)), 'components'),
        (Request(options=FAST, dtype='bfloat16'), 'dtype'),
    ):
        with pytest.raises(HbvlaError, match=f'out.partial: was begun with other .*{other}'):
            quantize_checkpoint(checkpoint, request, out, resume=True)
        assert contents(tmp_path / 'out.partial') == kept
    with pytest.raises(HbvlaError, match='out.partial: is left of .* --resume .* --force'):
        quantize_checkpoint(checkpoint, Request('rtn'), out)
    quantize_checkpoint(checkpoint, Request('rtn'), out, force=True)
    assert not (tmp_path / 'out.partial').exists()


def test_another_checkpoint_cannot_go_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    stop(checkpoint, tmp_path / 'out', Request('rtn'))
    path = checkpoint.folder / 'model.safetensors'
    tensors = load_file(path)
    tensors['projector.fc1.bias'] += 1
    save_file(tensors, path, metadata={'format': 'pt'})
    changed = Checkpoint.open(checkpoint.folder, checkpoint.platform)
    with pytest.raises(HbvlaError, match='was begun with other checkpoint'):
        quantize_checkpoint(changed, Request('rtn'), tmp_path / 'out', resume=True)


def test_resume_without_anything_to_go_on_with_begins(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quantize_checkpoint(checkpoint, Request('rtn'), tmp_path / 'out', resume=True)
    assert (tmp_path / 'out' / 'hbvla.json').is_file()


def test_a_full_disk_keeps_what_is_finished(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'new' / 'out'
    replace, count = os.replace, 0

    def refuse(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count > 20:
            raise OSError(28, 'No space left on device', str(target))
        replace(source, target)

    monkeypatch.setattr(resume.os, 'replace', refuse)
    with pytest.raises(HbvlaError, match=r'No space left.*; 9 finished layers stay in .*--resume'):
        quantize_checkpoint(checkpoint, Request('rtn'), out)
    monkeypatch.undo()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(writer, 'save_file', full)
    with pytest.raises(HbvlaError, match=r'No space left.*; 30 finished layers stay in'):
        quantize_checkpoint(checkpoint, Request('rtn'), out, resume=True)
    monkeypatch.undo()
    assert [path.name for path in out.parent.iterdir()] == ['out.partial']
    quantize_checkpoint(checkpoint, Request('rtn'), out, resume=True)
    assert [path.name for path in out.parent.iterdir()] == ['out']


def test_no_room_for_activations(
    checkpoint: Checkpoint, episodes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(activations.os, 'posix_fallocate', full)
    data = read_calibration(episodes_folder, checkpoint, 4, 0)
    request = Request('rtn', probe='none', cache_bytes=0)
    with pytest.raises(HbvlaError, match='no room for the cached activations'):
        quantize_checkpoint(checkpoint, request, tmp_path / 'out', data)
    assert not list(tmp_path.glob('out*'))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize(
    'name', ['language_model.model.layers.1.mlp.down_proj.weight', 'projector.fc1.bias']
)
def test_bad_weights_are_found_first_and_leave_nothing(
    value: float, name: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = checkpoint.folder / 'model.safetensors'
    tensors = load_file(path)
    tensors[name].view(-1)[3] = value
    save_file(tensors, path, metadata={'format': 'pt'})
    damaged = Checkpoint.open(checkpoint.folder, checkpoint.platform)
    with pytest.raises(HbvlaError, match=f'^{name}: holds NaN or infinity'):
        quantize_checkpoint(damaged, Request('rtn'), tmp_path / 'new' / 'out')
    assert not (tmp_path / 'new').exists()


def test_bad_input_in_the_middle_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = LayerQuantizer.quantize

    def fail(self: LayerQuantizer, name: str, *args: Any) -> None:
        if 'layers.0' in name:
            raise HbvlaError(f'{name}: the weights overflow')
        quantize(self, name, *args)

    monkeypatch.setattr(LayerQuantizer, 'quantize', fail)
    with pytest.raises(HbvlaError, match='the weights overflow$'):
        quantize_checkpoint(checkpoint, Request('rtn'), tmp_path / 'new' / 'out')
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('again', [{'resume': True}, {'force': True}])
def test_two_runs_do_not_share_a_folder(
    again: dict[str, bool], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    class Second(SilentProgress):
        tried = False

        def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
            if entry is not None and not self.tried:
                self.tried = True
                with pytest.raises(HbvlaError, match='out.partial: another run is at work there'):
                    quantize_checkpoint(checkpoint, Request('rtn'), tmp_path / 'out', **again)

    second = Second()
    quantize_checkpoint(checkpoint, Request('rtn'), tmp_path / 'out', progress=second)
    assert second.tried and (tmp_path / 'out' / 'hbvla.json').is_file()
