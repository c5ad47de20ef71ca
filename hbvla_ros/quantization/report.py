# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The quantization report: ``report.json`` with the figures, ``report.html`` to look at.

There is no time in it: the same run gives the same bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hbvla_ros.packed.manifest import LayerEntry, Manifest
from hbvla_ros.quantization.report_plots import TokenMap, error_plot, saliency_plot, token_maps
from hbvla_ros.quantization.result import QuantizationResult

JSON_NAME, HTML_NAME = 'report.json', 'report.html'
_TEMPLATES = Path(__file__).parent / 'templates'


def result_files(result: QuantizationResult) -> dict[str, str]:
    """The report of a quantization: both files as name to text.

    Args:
        result: of the pipeline.
    """
    maps = [
        TokenMap(one.picture.instruction, one.picture.images, one.grids, one.shares)
        for one in result.importance
    ]
    manifest = result.manifest
    content = report_content(
        manifest, result.components, result.saliency, manifest.action_error, maps
    )
    return report_files(content, maps)


def report_content(
    manifest: Manifest,
    components: Mapping[str, str],
    saliency: Mapping[str, list[float]],
    action_error: Mapping[str, Any] | None,
    maps: Sequence[TokenMap],
) -> dict[str, Any]:
    """The content of ``report.json``.

    Args:
        manifest: of the folder.
        components: layer name to component ('vision', 'language', 'projector', 'head').
        saliency: layer name to its spectrum; none without calibration.
        action_error: error of the actions on held-out frames, see the pipeline; None without.
        maps: token importance of a few frames.
    """
    return {
        'source': manifest.source['name'],
        'method': manifest.method,
        'options': manifest.options,
        'seed': manifest.seed,
        'calibration': manifest.calibration,
        'bits_asked': manifest.bits_asked,
        'stored_bits_per_weight': manifest.stored_bits_per_weight,
        'nominal_bits_per_weight': manifest.nominal_bits_per_weight,
        'refinement': manifest.refinement,
        'action_error': action_error,
        'layers': [
            _layer(name, entry, components[name], saliency.get(name))
            for name, entry in manifest.layers.items()
        ],
        'token_importance': [
            {
                'instruction': one.instruction,
                'shares': dict(one.shares),
                'patches': {
                    camera: [[round(float(v), 4) for v in row] for row in grid]
                    for camera, grid in one.grids.items()
                },
            }
            for one in maps
        ],
    }


def report_files(content: Mapping[str, Any], maps: Sequence[TokenMap]) -> dict[str, str]:
    """Both files as name to text.

    Args:
        content: what :func:`report_content` gave.
        maps: the frames whose images are shown.
    """
    return {
        JSON_NAME: json.dumps(content, indent=1) + '\n',
        HTML_NAME: _render(content, maps),
    }


def _layer(
    name: str, entry: LayerEntry, component: str, saliency: list[float] | None
) -> dict[str, Any]:
    return {
        'name': name,
        'component': component,
        'rows': entry.rows,
        'columns': entry.columns,
        'form': entry.form,
        'stored_bits': 8 * entry.bytes / (entry.rows * entry.columns),
        'nominal_bits': entry.nominal_bits,
        'relative_error': entry.relative_error,
        'hessian_error': entry.hessian_error,
        'saliency': saliency,
    }


def _render(content: Mapping[str, Any], maps: Sequence[TokenMap]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    layers = content['layers']
    spectrum = any(layer['saliency'] for layer in layers)
    picture = base64.b64encode(token_maps(maps)).decode('ascii') if maps else ''
    return environment.get_template('quantization.html').render(
        report=content,
        weights=sum(layer['rows'] * layer['columns'] for layer in layers),
        error_plot=Markup(error_plot(layers)),
        saliency_plot=Markup(saliency_plot(layers)) if spectrum else '',
        token_maps=picture,
        worst=sorted(layers, key=_error, reverse=True)[:5],
        error=_error,
    )


def _error(layer: Mapping[str, Any]) -> float:
    error = layer['hessian_error']
    return float(layer['relative_error'] if error is None else error)
