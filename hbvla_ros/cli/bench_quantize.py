# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla bench quantize``: time and memory of a quantization at full width."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any


def add_parser(benchmarks: Any) -> None:
    """Add ``hbvla bench quantize``."""
    parser = benchmarks.add_parser(
        'quantize',
        help='time and memory of a quantization at full width',
        description='Build a network with the widths of OpenVLA-OFT and random weights in a '
        'temporary folder (about 2.5 GB with 2 decoder layers; TMPDIR says where), quantize it '
        'in a process of its own, and print time and peak memory, with an extrapolation to all '
        'layers.',
    )
    parser.add_argument('--decoder-layers', type=int, default=2, help='default 2, 32 for all')
    parser.add_argument(
        '--tower-blocks', type=int, default=2, help='of each tower, default 2, 26 for all'
    )
    parser.add_argument(
        '--width-divisor', type=int, default=1, metavar='N',
        help='divide all widths, for a quick look (default 1)',
    )  # fmt: skip
    parser.add_argument('--cameras', type=int, default=3, help='images of a frame (default 3)')
    parser.add_argument(
        '--method', default='signplane', metavar='SPEC',
        help='NAME[:BITS][:PRESET][:OPTION=VALUE] (default signplane)',
    )  # fmt: skip
    parser.add_argument('--frames', type=int, default=8, help='calibration frames (default 8)')
    parser.add_argument('--probe', default='action', help='as for hbvla quantize (default action)')
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument(
        '--dtype', choices=('float32', 'bfloat16'), default='float32',
        help='type of the forward passes (default float32)',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='seed of everything random')
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the JSON to a file')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Build, quantize and measure, showing progress, and print tables or JSON."""
    from hbvla_ros.cli.output import check_file
    from hbvla_ros.cli.progress import Reporter, stop_like_an_interrupt
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.versions import versions
    from hbvla_ros.policy import check_device
    from hbvla_ros.quantization.quantize_benchmark import QuantizeBenchmark, markdown_report
    from hbvla_ros.quantization.random_checkpoint import RandomShape

    if options.out is not None:
        check_file(options.out)
    check_device(options.device)
    benchmark = QuantizeBenchmark(
        RandomShape(
            options.decoder_layers, options.tower_blocks, options.cameras, options.width_divisor
        ),
        options.method,
        options.frames,
        options.probe,
        options.device,
        options.dtype,
        options.seed,
    )
    benchmark.check()
    stop_like_an_interrupt()
    stage = ''
    with (
        tempfile.TemporaryDirectory(prefix='hbvla_bench_') as folder,
        Reporter() as reporter,
    ):

        def tell(title: str, done: int, steps: int) -> None:
            nonlocal stage
            if title != stage:
                reporter.begin(title, steps)
                stage = title
            elif done:
                reporter.advance()

        result = benchmark.run(Path(folder), tell) | {'versions': versions()}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, json.dumps(result, indent=1) + '\n')
    print(json.dumps(result, indent=1) if options.json else markdown_report(result))
    return 0
