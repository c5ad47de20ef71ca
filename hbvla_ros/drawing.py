# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Figures for reports: one style, and SVG text that takes its ink from the page around it."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.figure import Figure

# Readable on white and on near-black; also for most colour-blind readers.
COLOURS = ('#3b7dd8', '#d9822b', '#4f9d69', '#a55fbf')
# Stands for the page's own ink until the SVG is written.
INK = '#010203'

STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',
    'font.family': 'sans-serif',
    'font.size': 9,
    'text.color': INK,
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'axes.linewidth': 0.6,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'legend.frameon': False,
    'figure.constrained_layout.hspace': 0.08,
    'figure.constrained_layout.wspace': 0.05,
    # Identifiers from a fixed seed: the same data give the same file.
    'svg.hashsalt': 'hbvla',
}


def svg_text(figure: Figure) -> str:
    """The figure as an SVG element without XML prologue, with ``currentColor`` for ink."""
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
    text = buffer.getvalue()
    text = text[text.index('<svg') :].replace(INK, 'currentColor')
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    # The page decides the width; the view box keeps the proportions.
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', re.sub(
        r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1), count=1)  # fmt: skip
