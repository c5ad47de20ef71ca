# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Plots of the quantization report: SVG text for curves, PNG bytes for maps over images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hbvla_ros.drawing import INK, STYLE, svg_text

# Readable on white and on near-black; also for most colour-blind readers.
_COLOURS = {'vision': '#d9822b', 'language': '#3b7dd8', 'projector': '#4f9d69', 'head': '#a55fbf'}
_MARKS = 'osD^v<>Pphd'
_MAP_WIDTH = 2.0  # inches a picture
_MAP_DPI = 80


@dataclass(frozen=True)
class TokenMap:
    """Importance of the image patches of one calibration frame.

    Attributes:
        instruction: the frame's task.
        images: camera name to uint8 (H, W, 3).
        grids: camera name to float (rows, columns), mean token weight of each patch.
        shares: token type to its share of all weight, in 0 to 1.
    """

    instruction: str
    images: Mapping[str, NDArray[np.uint8]]
    grids: Mapping[str, NDArray[np.float32]]
    shares: Mapping[str, float]


def error_plot(layers: Sequence[Mapping[str, Any]]) -> str:
    """Error of every layer in forward order, one mark a type of layer.

    Args:
        layers: entries of the report with ``name``, ``component``, ``relative_error`` and
            ``hessian_error`` (None without calibration).
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.0), layout='constrained')
        axes = figure.subplots()
        kinds = sorted({_kind(layer) for layer in layers})
        for kind in kinds:
            places = [i for i, layer in enumerate(layers) if _kind(layer) == kind]
            values = [_error(layers[i]) for i in places]
            colour = _COLOURS.get(layers[places[0]]['component'], INK)
            mark = _MARKS[kinds.index(kind) % len(_MARKS)]
            axes.plot(places, values, mark, ms=4, color=colour, label=kind, alpha=0.85)
        axes.set_yscale('log')
        axes.set_xlabel('layer, in forward order')
        axes.set_ylabel('relative squared error')
        axes.legend(ncols=2, fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))
        return svg_text(figure)


def saliency_plot(layers: Sequence[Mapping[str, Any]]) -> str:
    """Sorted column saliency of every layer, relative to its mean.

    Args:
        layers: entries with ``component`` and ``saliency``, falling quantiles of the column
            saliency over evenly spaced ranks; those without calibration have none.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.8), layout='constrained')
        axes = figure.subplots()
        seen = set()
        for layer in layers:
            values = layer.get('saliency')
            if not values:
                continue
            component = layer['component']
            label = None if component in seen else component
            seen.add(component)
            share = np.linspace(0, 100, len(values))
            colour = _COLOURS.get(component, INK)
            axes.plot(share, np.maximum(values, 1e-6), lw=0.7, alpha=0.6, color=colour, label=label)
        axes.set_yscale('log')
        axes.set_xlabel('columns, most salient first (%)')
        axes.set_ylabel('saliency / mean')
        axes.legend()
        return svg_text(figure)


def token_maps(maps: Sequence[TokenMap]) -> bytes:
    """Camera images with the importance of their patches on top, one row a frame.

    Returns:
        A PNG file.
    """
    columns = max(len(one.images) for one in maps)
    figure = Figure(figsize=(_MAP_WIDTH * columns, (_MAP_WIDTH + 0.25) * len(maps)))
    grid = figure.subplots(len(maps), columns, squeeze=False)
    for row, one in zip(grid, maps, strict=True):
        # One scale a frame: cameras can be compared with each other.
        most = max(float(values.max()) for values in one.grids.values())
        for axes in row:
            axes.set_axis_off()
        for axes, (camera, image) in zip(row, one.images.items(), strict=False):
            height, width = image.shape[:2]
            axes.imshow(image.mean(axis=2), cmap='gray', vmin=0, vmax=255)
            axes.imshow(
                one.grids[camera],
                cmap='inferno',
                alpha=0.55,
                vmin=0,
                vmax=most,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                interpolation='bilinear',
            )
            axes.set_title(camera, fontsize=8)
    figure.tight_layout(pad=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=_MAP_DPI, metadata={'Software': None})
    return buffer.getvalue()


def _kind(layer: Mapping[str, Any]) -> str:
    return f'{layer["component"]}: {layer["name"].rpartition(".")[2]}'


def _error(layer: Mapping[str, Any]) -> float:
    error = layer['hessian_error']
    return float(layer['relative_error'] if error is None else error)
