# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla quantize``: make a deployed checkpoint of sign planes from a full-precision one."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.quantization.summaries import list_methods

if TYPE_CHECKING:
    from hbvla_ros.packed.manifest import LayerEntry
    from hbvla_ros.quantizing import Job


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
        help='1, 2 or 3 for so many sign planes; any other number is a budget of stored bits '
        'per weight, scales included, shared by all layers (default: what the method stores by '
        'itself, one plane for signplane)',
    )
    parser.add_argument(
        '--preset', default='default', metavar='NAME', help='preset of the method, such as parity'
    )
    parser.add_argument(
        '--set',
        action='append',
        default=[],
        dest='settings',
        metavar='NAME=VALUE',
        help='one option of the method; may be given several times',
    )
    parser.add_argument(
        '--components',
        default='vision,language',
        metavar='LIST',
        help='what is quantized: some of vision,language,projector,head (default vision,language)',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--platform', help='platform name or file, where the folder has none')
    parser.add_argument(
        '--base', type=Path, metavar='FOLDER', help='base model, for a LoRA adapter folder'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of everything random')
    _add_calibration(parser)
    _add_refinement(parser)
    _add_execution(parser)
    parser.set_defaults(run=run)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    """What the layers are measured on."""
    parser.add_argument(
        '--calibration',
        type=Path,
        action='append',
        default=[],
        metavar='EPISODES',
        help='recorded episodes: a folder from hbvla demos, of ALOHA HDF5 files or of bags, a bag, '
        'or a single file; may be given several times',
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
        '--held-out',
        type=int,
        default=16,
        metavar='FRAMES',
        help='further frames that the action error is measured on (default 16)',
    )
    parser.add_argument(
        '--probe',
        choices=('action', 'block', 'parity', 'none'),
        default='action',
        help='weigh calibration tokens by the action gradient (default), by the block-wise '
        'gradient of the paper, by the same to the letter, or not',
    )
    parser.add_argument(
        '--probe-set',
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='one option of the probe, such as power=1; may be given several times',
    )


def _add_refinement(parser: argparse.ArgumentParser) -> None:
    """What comes after the layers."""
    parser.add_argument(
        '--refine',
        type=int,
        default=0,
        metavar='STEPS',
        help='after quantization, tune all but the signs together on the actions of the '
        'calibration frames, for so many gradient steps (default 0: none); the whole network '
        'must fit into memory',
    )
    parser.add_argument(
        '--refine-frames',
        type=int,
        metavar='FRAMES',
        help='frames that the refinement draws from, the calibration frames among them '
        '(default: these alone)',
    )
    parser.add_argument(
        '--refine-signs',
        action='store_true',
        help='train the signs as well, of signplane, rtn and dbf: takes thousands of frames',
    )


def _add_execution(parser: argparse.ArgumentParser) -> None:
    """How it is run."""
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda or cuda:0')
    parser.add_argument(
        '--dtype',
        choices=('float32', 'bfloat16'),
        default='float32',
        help='type of the forward passes (default float32); Hessians are float32 always',
    )
    parser.add_argument(
        '--cache-memory',
        type=float,
        metavar='GB',
        help='activations between two blocks that stay in memory, more go to disk beside --out '
        '(default: a quarter of the available memory)',
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on after the last finished layer of an interrupted run',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace a deployed folder, or begin an interrupted run anew',
    )


def run(options: argparse.Namespace) -> int:
    """Quantize, showing progress, and print where the bytes went."""
    from rich.console import Console

    from hbvla_ros.cli.info import print_report
    from hbvla_ros.cli.output import check_writable
    from hbvla_ros.cli.progress import stop_like_an_interrupt
    from hbvla_ros.packed.accounting import packed_report
    from hbvla_ros.packed.atomic import check_output
    from hbvla_ros.packed.reader import PackedFolder
    from hbvla_ros.quantization.resume import work_path
    from hbvla_ros.quantizing import run_job

    check_output(options.out, options.force)
    check_writable(options.out)
    job = _job(options)
    stop_like_an_interrupt()
    # The figures go to standard output, what passes by on the way does not.
    with _RichProgress(Console(stderr=True)) as progress:
        try:
            run_job(job, progress)
        except KeyboardInterrupt:
            if not work_path(options.out).is_dir():
                raise
            progress.stop()
            done = f'after {progress.layers} of {progress.total} layers'
            print(
                f'hbvla: stopped {done if progress.total else "before the first layer"}; '
                'go on with the same command and --resume',
                file=sys.stderr,
            )
            return 130
    print_report(Console(), packed_report(PackedFolder.open(options.out)))
    return 0


def _job(options: argparse.Namespace) -> Job:
    """The job that the command line asks for."""
    from hbvla_ros.errors import HbvlaError
    from hbvla_ros.quantizing import Job

    memory = options.cache_memory
    if memory is not None and not 0 <= memory < math.inf:
        raise HbvlaError(f'--cache-memory {memory:g}: must be a number of gigabytes, 0 or more')
    return Job(
        checkpoint=options.checkpoint,
        out=options.out,
        method=options.method,
        bits=options.bits,
        preset=options.preset,
        settings=tuple(options.settings),
        platform=options.platform,
        base=options.base,
        calibration=tuple(options.calibration),
        robot=options.calibration_profile,
        instruction=options.instruction,
        frames=options.frames,
        held_out=options.held_out,
        probe=options.probe,
        probe_settings=tuple(options.probe_set),
        components=tuple(filter(None, options.components.split(','))),
        device=options.device,
        dtype=options.dtype,
        refine=options.refine,
        refine_frames=options.refine_frames,
        refine_signs=options.refine_signs,
        seed=options.seed,
        force=options.force,
        resume=options.resume,
        cache_bytes=None if memory is None else round(1e9 * memory),
    )


class _RichProgress:
    """A live line a stage: layer, its error, stored bits so far, time left.

    Attributes:
        layers: quantized layers so far.
        total: layers there will be, 0 until that is known.
    """

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
        self._steps = 0
        self._bytes = 0
        self._weights = 0
        self.layers = 0
        self.total = 0

    def __enter__(self) -> _RichProgress:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the lines as they are."""
        if self._task is not None:  # else it would print an empty line
            self._progress.stop()

    def stage(self, title: str, steps: int) -> None:
        """Begin a new line."""
        self._progress.start()
        self._steps = steps
        self._task = self._progress.add_task(title, total=steps, detail='')

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """Advance the line and show the layer that is done."""
        detail = ''
        if entry is not None:
            self.layers += 1
            self.total = self._steps
            self._bytes += entry.bytes
            self._weights += entry.rows * entry.columns
            error = entry.relative_error if entry.hessian_error is None else entry.hessian_error
            short = name.removeprefix('language_model.model.').removeprefix('vision_backbone.')
            detail = f'{short}  error {error:.4f}  {8 * self._bytes / self._weights:.3f} bits'
        self._progress.update(self._task, advance=1, detail=detail)
