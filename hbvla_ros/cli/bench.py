# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla bench``: figures that the documentation quotes, one subcommand for each kind."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hbvla_ros.cli import bench_actions, bench_quantize


def add_parser(subparsers: Any) -> None:
    """Add the subcommand with its own subcommands."""
    parser = subparsers.add_parser(
        'bench',
        help='measure methods against each other',
        description='Measurements whose figures the documentation quotes.',
    )
    benchmarks = parser.add_subparsers(dest='benchmark', required=True, metavar='BENCHMARK')
    _add_layers(benchmarks)
    bench_actions.add_parser(benchmarks)
    bench_quantize.add_parser(benchmarks)


def _add_layers(benchmarks: Any) -> None:
    """Add ``hbvla bench layers``."""
    parser = benchmarks.add_parser(
        'layers',
        help='output error of quantization methods on synthetic layers',
        description='Quantize synthetic layers with the statistics of real ones and print the '
        'output error on held-out tokens beside the bits that are really stored.',
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        metavar='SPEC',
        help='NAME[:BITS][:PRESET][:OPTION=VALUE] each, such as rtn, signplane:1.05 or hbvla:best '
        '(default: every method, with budgets of 1.05, 1.3 and 2.05 where it takes one)',
    )
    parser.add_argument('--kinds', nargs='+', metavar='KIND', help='kinds of layers (default all)')
    parser.add_argument('--rows', type=int, default=1024, help='outputs (default 1024)')
    parser.add_argument('--columns', type=int, default=1024, help='inputs (default 1024)')
    parser.add_argument(
        '--seeds', type=bench_actions.seeds, default=(0, 1, 2), metavar='N,N', help='default 0,1,2'
    )
    parser.add_argument(
        '--tokens',
        type=int,
        default=6144,
        help='calibration tokens, and as many held-out ones (default 6144)',
    )
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument('--json', action='store_true', help='print JSON instead of the table')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the JSON to a file')
    parser.set_defaults(run=run_layers)


def run_layers(options: argparse.Namespace) -> int:
    """Quantize the layers, showing progress, and print the table or JSON."""
    from hbvla_ros.cli.output import check_file
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.versions import versions
    from hbvla_ros.policy import check_device
    from hbvla_ros.quantization import layer_benchmark
    from hbvla_ros.quantization.method_spec import MethodSpec, default_specs
    from hbvla_ros.quantization.synthetic import KINDS

    if options.out is not None:
        check_file(options.out)
    check_device(options.device)
    texts = options.methods or default_specs()
    benchmark = layer_benchmark.LayerBenchmark(
        specs=[MethodSpec.parse(text) for text in texts],
        kinds=options.kinds or KINDS,
        rows=options.rows,
        columns=options.columns,
        seeds=options.seeds,
        tokens=options.tokens,
        device=options.device,
    )
    benchmark.check()
    with _progress(len(texts) * len(benchmark.kinds) * len(benchmark.seeds)) as step:
        results = benchmark.run(step)
    content = benchmark.to_json(results) | {'versions': versions()}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, json.dumps(content, indent=1) + '\n')
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        print(layer_benchmark.markdown_table(results))
    return 0


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yields what is told about each part that is done: a live line, or plain lines in a log."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield lambda text: console.print(text, markup=False)
        return
    text_column = TextColumn('{task.description}', table_column=Column(ratio=1, no_wrap=True))
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), text_column)
    with Progress(*columns, console=console, expand=True, transient=True) as progress:
        task = progress.add_task('', total=total)
        yield lambda text: progress.update(task, advance=1, description=text)
