# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla info``: what a checkpoint folder is and where its bytes are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbvla_ros.packed.accounting import SizeReport, SizeRow


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'info',
        help='show what a checkpoint folder holds and its true bits',
        description='Size table of a deployed or full-precision folder. Stored bits count all '
        'bytes that are needed to rebuild the quantized weights, nominal bits only sign planes.',
    )
    parser.add_argument('folder', type=Path, help='deployed or full-precision folder')
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the sizes; deployed folders are verified first."""
    from rich.console import Console

    from hbvla_ros.packed.accounting import full_precision_report, packed_report
    from hbvla_ros.packed.manifest import MANIFEST_NAME
    from hbvla_ros.packed.reader import PackedFolder

    if (options.folder / MANIFEST_NAME).exists():
        report = packed_report(PackedFolder.open(options.folder))
    else:
        report = full_precision_report(options.folder)
    if options.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        print_report(Console(), report)
    return 0


def print_report(console: Any, report: SizeReport) -> None:
    """Print the size tables and the one-line summary."""
    console.print(_table(f'{Path(report.folder).name}: by component', report.components))
    if report.layer_types:
        console.print(_table('quantized layers by type', report.layer_types))
    # Plain prints: a figure that is wrapped at the terminal's edge cannot be searched for.
    print(
        f'method {report.method}: {report.stored_bits_per_weight:.4f} stored bits per weight '
        f'({report.nominal_bits_per_weight:g} nominal)'
    )
    print(f'total {readable(report.total_bytes)} ({report.total_bytes} bytes)', end='')
    if report.method == 'none':
        print()
        return
    ratio = report.source_bytes / report.total_bytes
    print(f', full precision {readable(report.source_bytes)}: {ratio:.2f} times smaller')
    calibration = report.details.get('calibration')
    if calibration:
        print(
            f'calibrated on {calibration["frames"]} frames of {calibration["episodes"]} episodes, '
            f'token weights: {calibration["probe"]}'
        )


def readable(size: int) -> str:
    """Bytes in decimal units, as file managers print them."""
    value = float(size)
    for unit in ('B', 'kB', 'MB'):
        if value < 1000:
            return f'{value:.0f} B' if unit == 'B' else f'{value:.2f} {unit}'
        value /= 1000
    return f'{value:.2f} GB'


def _table(title: str, rows: list[SizeRow]) -> Any:
    """A rich table with one line a row and their sum; parts that are absent are left out."""
    from rich.table import Table

    quantized = any(row.quantized_weights for row in rows)
    of_what = 'of the quantized layers only' if quantized else 'as stored'
    caption = f'bits per weight, {of_what}'
    table = Table(title=title, title_justify='left', caption=caption, caption_justify='left')
    table.add_column('part')
    for heading in ('parameters', 'size', 'stored bits', 'nominal bits'):
        table.add_column(heading, justify='right')
    for row in rows:
        if row.bytes:
            table.add_row(
                row.name,
                f'{row.parameters:,}' if row.parameters else '-',
                readable(row.bytes),
                _bits(row.stored_bits_per_weight if quantized else row.bits_per_parameter),
                _bits(row.nominal_bits_per_weight),
            )
    table.add_section()
    parameters, size = sum(row.parameters for row in rows), sum(row.bytes for row in rows)
    table.add_row('all', f'{parameters:,}', readable(size), '', '')
    return table


def _bits(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
