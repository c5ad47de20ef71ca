# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla quantize``: make a deployed checkpoint of sign planes from a full-precision one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.quantization.summaries import list_methods

if TYPE_CHECKING:
    from hbvla_ros.packed.manifest import LayerEntry


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'quantize',
        help='quantize a full-precision checkpoint',
        description='Quantize an OpenVLA-OFT folder and write a deployed folder. '
        'Stored bits count everything that is needed to rebuild the weights.',
    )
    parser.add_argument('checkpoint', type=Path, help='full-precision Hugging Face folder')
    parser.add_argument(
        '--method', default='signplane', help=f'{list_methods()} (default signplane)'
    )
    parser.add_argument(
        '--bits',
        type=float,
        default=1.0,
        help='1, 2 or 3 for so many sign planes; any other number is a budget of stored bits '
        'per weight, scales included (default 1)',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--platform', help='platform name or file, where the folder has none')
    parser.add_argument(
        '--base', type=Path, metavar='FOLDER', help='base model, for a LoRA adapter folder'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of everything random')
    parser.add_argument(
        '--calibration',
        type=Path,
        metavar='EPISODES',
        help='recorded episodes: a folder from hbvla demos, of ALOHA HDF5 files or of bags, a bag, '
        'or a single file',
    )
    parser.add_argument(
        '--calibration-profile',
        metavar='ROBOT',
        help='robot profile, a name or a file, that names the topics of bags '
        "(default: that of the policy's robot)",
    )
    parser.add_argument(
        '--instruction', help='task in words, for recorded episodes that do not say theirs'
    )
    parser.add_argument(
        '--frames', type=int, default=128, help='calibration frames drawn (default 128)'
    )
    parser.add_argument(
        '--probe',
        choices=('action', 'none'),
        default='action',
        help='weigh calibration tokens by the action gradient (default) or not',
    )
    parser.add_argument('--force', action='store_true', help='replace a deployed folder')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Quantize, showing progress, and print where the bytes went."""
    from rich.console import Console

    from hbvla_ros.cli.info import print_report
    from hbvla_ros.cli.output import check_writable
    from hbvla_ros.errors import HbvlaError
    from hbvla_ros.packed.accounting import packed_report
    from hbvla_ros.packed.atomic import check_output
    from hbvla_ros.packed.manifest import MANIFEST_NAME
    from hbvla_ros.packed.reader import PackedFolder
    from hbvla_ros.quantization.options import check_seed
    from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
    from hbvla_ros.quantization.registry import find_method
    from hbvla_ros.quantizing import read_calibration
    from hbvla_ros.vla.checkpoint import Checkpoint
    from hbvla_ros.vla.platform import resolve_platform

    check_output(options.out, options.force)
    check_writable(options.out)
    find_method(options.method)
    check_seed(options.seed)
    if options.frames < 1:
        raise HbvlaError(f'--frames {options.frames}: at least 1 is needed')
    if (options.checkpoint / MANIFEST_NAME).exists():
        raise HbvlaError(
            f'{options.checkpoint}: is quantized already; name the full-precision folder'
        )
    # The figures go to standard output, what passes by on the way does not.
    console = Console(stderr=True)
    platform = resolve_platform(options.checkpoint, options.platform)
    checkpoint = Checkpoint.open(options.checkpoint, platform, options.base)
    request = Request(options.method, options.bits, options.seed, options.probe)
    with _RichProgress(console) as progress:
        calibration = None
        if options.calibration is not None:
            progress.stage('frames', 1)
            calibration = read_calibration(
                options.calibration,
                checkpoint,
                options.frames,
                options.seed,
                robot=options.calibration_profile,
                instruction=options.instruction,
            )
            progress.step()
        quantize_checkpoint(checkpoint, request, options.out, calibration, progress, options.force)
    print_report(Console(), packed_report(PackedFolder.open(options.out)))
    return 0


class _RichProgress:
    """A live line a stage: layer, its error, stored bits so far, time left."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=24),
            TextColumn('{task.completed:.0f}/{task.total:.0f}'),
            TimeRemainingColumn(),
            TextColumn('{task.fields[detail]}'),
            console=console,
        )
        self._task: Any = None
        self._bytes = 0
        self._weights = 0

    def __enter__(self) -> _RichProgress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def stage(self, title: str, steps: int) -> None:
        """Begin a new line."""
        self._progress.start()
        self._task = self._progress.add_task(title, total=steps, detail='')

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """Advance the line and show the layer that is done."""
        detail = ''
        if entry is not None:
            self._bytes += entry.bytes
            self._weights += entry.rows * entry.columns
            error = entry.relative_error if entry.hessian_error is None else entry.hessian_error
            short = name.removeprefix('language_model.model.').removeprefix('vision_backbone.')
            detail = f'{short}  error {error:.4f}  {8 * self._bytes / self._weights:.3f} bits'
        self._progress.update(self._task, advance=1, detail=detail)
