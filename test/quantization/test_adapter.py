# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hbvla_ros.cli.main import main
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import Platform


def test_an_adapter_is_quantized_on_its_base(
    tiny_checkpoint: Path,
    tiny_adapter: Callable[[Path], Path],
    episodes_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = tiny_adapter(tiny_checkpoint), tmp_path / 'out'
    arguments = ['quantize', str(folder), '--out', str(out), '--frames', '8']
    arguments += ['--calibration', str(episodes_folder)]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith('hbvla: error: ')
    assert main([*arguments, '--base', str(tiny_checkpoint)]) == 0
    platform = Platform.read(folder / 'platform.json')
    merged = Checkpoint.open(folder, platform, tiny_checkpoint)
    packed = PackedFolder.open(out)
    name = 'language_model.model.layers.0.self_attn.q_proj'
    rebuilt = packed.layers[name].reconstruct()
    assert relative_error(merged.tensor(f'{name}.weight'), rebuilt) < 0.6
    source = packed.manifest.source
    described = [(folder, source), (tiny_checkpoint, source['base'])]
    for place, entry in described:
        files = [path for path in place.rglob('*') if path.is_file()]
        assert set(entry['files']) == {str(path.relative_to(place)) for path in files}
        assert entry['name'] == place.name
    both = [path for path in tmp_path.glob('[rt]*/**/*') if path.is_file()]
    assert source['bytes'] == sum(path.stat().st_size for path in both)
    assert Policy.load(out).tokenizer('put cube')
