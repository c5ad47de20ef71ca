# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from hbvla_ros.packed.bits import pack_signs
from hbvla_ros.packed.forms.sign_planes import SignPlaneLayer
from hbvla_ros.packed.layer import store_scale
from hbvla_ros.packed.manifest import LayerEntry, Manifest
from hbvla_ros.quantization.report import report_content, report_files
from hbvla_ros.quantization.report_plots import TokenMap
from hbvla_ros.quantization.spectrum import saliency_spectrum

NAMES = [
    f'language_model.model.layers.{i}.self_attn.{kind}_proj' for i in range(3) for kind in 'qkvo'
]


def make_manifest(calibrated: bool = True) -> Manifest:
    layer = SignPlaneLayer.uniform(
        24, pack_signs(torch.ones(1, 16, 24)), store_scale(torch.ones(1, 16))
    )
    entries = {
        name: LayerEntry.of(layer, 0.3 + i / 100, 0.1 + i / 100 if calibrated else None)
        for i, name in enumerate(NAMES)
    }
    return Manifest(
        stored_bits_per_weight=1.0625,
        nominal_bits_per_weight=1.0,
        bits_asked=1.0,
        method='signplane',
        options={'planes': 1, 'note': '<b>&'},
        seed=3,
        calibration={'frames': 8, 'episodes': 4} if calibrated else None,
        source={'name': 'small <policy>', 'bytes': 1},
        layers=entries,
    )


def make_map() -> TokenMap:
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (32, 48, 3), dtype=np.uint8)
    grid = random.random((4, 4), dtype=np.float32)
    return TokenMap('lift', {'cam_high': image}, {'cam_high': grid}, {'visual': 0.7, 'text': 0.3})


def make_report(calibrated: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    maps = [make_map()] if calibrated else []
    spectrum = saliency_spectrum([4.0, 1.0, 1.0]) if calibrated else None
    content = report_content(
        make_manifest(calibrated),
        dict.fromkeys(NAMES, 'language'),
        dict.fromkeys(NAMES, spectrum) if spectrum else {},
        {'relative_rms': 0.0671, 'frames': 5} if calibrated else None,
        maps,
    )
    return content, report_files(content, maps)


def test_the_page_shows_what_the_json_says() -> None:
    content, files = make_report()
    assert json.loads(files['report.json']) == content
    page = files['report.html']
    for shown in (
        '1.062',
        '6.71 %',
        '5 held-out',
        'small &lt;policy&gt;',
        '&lt;b&gt;&amp;',
        'lift',
    ):
        assert shown in page
    assert page.count('<svg') == 2 and 'data:image/png;base64,' in page
    assert page.count('<tr><td>language_model') == len(NAMES)
    assert 'visual 70 %' in page and 'http://' not in page.replace('http://www.w3.org', '')


def test_without_calibration_there_is_no_spectrum_no_map_and_no_action_error() -> None:
    content, files = make_report(calibrated=False)
    assert content['action_error'] is None and content['token_importance'] == []
    assert files['report.html'].count('<svg') == 1
    assert 'Without calibration' in files['report.html'] and 'base64' not in files['report.html']


def test_same_data_same_bytes() -> None:
    assert make_report()[1] == make_report()[1]


def test_the_spectrum_falls_and_is_relative_to_the_mean() -> None:
    spectrum = saliency_spectrum([1.0, 7.0, 4.0, 0.0])
    assert spectrum == sorted(spectrum, reverse=True) and len(spectrum) == 65
    assert (spectrum[0], spectrum[-1]) == (pytest.approx(7 / 3), 0.0)
    assert saliency_spectrum([0.0, 0.0]) == [0.0] * 65
