# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla bench actions``: action error of quantized policies, method by probe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbvla_ros.cli.progress import Reporter
    from hbvla_ros.packed.manifest import LayerEntry
    from hbvla_ros.quantization.action_benchmark import ActionBenchmark
    from hbvla_ros.quantization.action_results import ActionResult
    from hbvla_ros.quantization.calibration import CalibrationSet


def add_parser(benchmarks: Any) -> None:
    """Add ``hbvla bench actions``."""
    parser = benchmarks.add_parser(
        'actions',
        help='action error of a quantized policy, method by probe',
        description='Quantize a policy with every method under every probe and print the root '
        'mean square error of its actions on held-out frames, relative to the spread of the '
        'full-precision actions, beside the bits that are really stored.',
    )
    parser.add_argument('checkpoint', type=Path, help='full-precision Hugging Face folder')
    parser.add_argument(
        '--calibration', type=Path, required=True, metavar='EPISODES',
        help='recorded episodes, as for hbvla quantize',
    )  # fmt: skip
    parser.add_argument('--platform', help='platform name or file, where the folder has none')
    parser.add_argument(
        '--calibration-profile', metavar='ROBOT', help='robot profile that names topics of bags'
    )
    parser.add_argument('--instruction', help='task in words, where recordings do not say theirs')
    parser.add_argument('--frames', type=int, default=128, help='calibration frames (default 128)')
    parser.add_argument(
        '--held-out', type=int, default=64, metavar='FRAMES',
        help='further frames that the actions are compared on (default 64)',
    )  # fmt: skip
    parser.add_argument(
        '--methods', nargs='+', metavar='SPEC',
        help='NAME[:BITS][:PRESET][:OPTION=VALUE][+refine=STEPS] each, such as rtn, hbvla:best or '
        'signplane:1.3+refine=200 '
        '(default: every method at sizes that any network allows)',
    )  # fmt: skip
    parser.add_argument(
        '--probes', nargs='+', metavar='PROBE',
        help='some of none, block (block-wise gradient to the letter of the paper), block-all '
        '(the same for all layers, normalised and bounded), action1, action2 (action gradient '
        'with power 1 and 2); default none block action1 action2',
    )  # fmt: skip
    parser.add_argument(
        '--seeds', type=seeds, default=(0,), metavar='N,N',
        help='each draws frames of its own; the table has their mean (default 0)',
    )  # fmt: skip
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument(
        '--dtype', choices=('float32', 'bfloat16'), default='float32',
        help='type of the forward passes (default float32)',
    )  # fmt: skip
    parser.add_argument('--json', action='store_true', help='print JSON instead of the table')
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='keep the JSON in a file, after each combination'
    )
    parser.add_argument(
        '--resume', action='store_true', help='take over what is in the file already'
    )
    parser.set_defaults(run=run)


def seeds(text: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    return tuple(int(part) for part in text.split(','))


def run(options: argparse.Namespace) -> int:
    """Run all combinations, showing progress, and print the table or JSON."""
    from hbvla_ros.cli.progress import Reporter, stop_like_an_interrupt
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.quantization.action_benchmark import Combination
    from hbvla_ros.quantization.action_results import markdown_table, merged, read_results

    _check_file(options)
    benchmark = _benchmark(options)
    benchmark.check()
    header = _header(options, benchmark)
    earlier = _read_json(options.out) if options.resume else {'results': [], **header}
    known = read_results(earlier, header, str(options.out))
    stop_like_an_interrupt()
    found: list[ActionResult] = []
    calibrations: dict[str, Any] = dict(earlier.get('calibrations', {}))

    def calibrate(seed: int) -> CalibrationSet:
        calibration = _calibrate(options, benchmark, seed)
        calibrations[str(seed)] = calibration.description
        return calibration

    def content() -> dict[str, Any]:
        results = [vars(result) for result in merged(known, found)]
        return {**header, 'calibrations': calibrations, 'results': results}

    with Reporter() as reporter:
        reporter.begin('combinations', len(benchmark.combinations()))

        def begin(combination: Combination) -> _Status:
            return _Status(reporter, str(combination))

        for result in benchmark.run(calibrate, known, begin):
            found.append(result)
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(options.out, json.dumps(content(), indent=1) + '\n')
            reporter.say(
                f'{result.method}  probe {result.probe}  seed {result.seed}: action error '
                f'{result.relative_rms:.4f} at {result.stored_bits:.3f} stored bits, '
                f'{result.seconds:.1f} s'
            )
            reporter.advance()
    if options.json:
        print(json.dumps(content(), indent=1))
    else:
        print(markdown_table(merged(known, found)))
    return 0


def _check_file(options: argparse.Namespace) -> None:
    """Refuse to lose an earlier run, or to go on with none.

    Raises:
        HbvlaError: names the file and the flag that would do.
    """
    from hbvla_ros.cli.output import check_file
    from hbvla_ros.errors import HbvlaError

    if options.resume and options.out is None:
        raise HbvlaError('--resume: name the file of the earlier run with --out')
    if options.out is None:
        return
    check_file(options.out)
    if options.resume and not options.out.exists():
        raise HbvlaError(f'{options.out}: no such file to go on with; leave --resume out')
    if options.out.exists() and not options.resume:
        raise HbvlaError(
            f'{options.out}: exists already; add --resume to go on with it, or name another file'
        )


def _benchmark(options: argparse.Namespace) -> ActionBenchmark:
    """What is asked for.

    Raises:
        HbvlaError: a number out of its range, no such method, or an incomplete checkpoint.
    """
    from hbvla_ros.errors import HbvlaError
    from hbvla_ros.policy import check_device
    from hbvla_ros.quantization import action_benchmark
    from hbvla_ros.vla.checkpoint import Checkpoint
    from hbvla_ros.vla.platform import resolve_platform

    for flag, number in (('frames', options.frames), ('held-out', options.held_out)):
        if number < 1:
            raise HbvlaError(f'--{flag} {number}: at least 1 is needed')
    check_device(options.device)
    texts = options.methods or action_benchmark.DEFAULT_METHODS
    specs = [action_benchmark.ActionSpec.parse(text) for text in texts]
    platform = resolve_platform(options.checkpoint, options.platform)
    return action_benchmark.ActionBenchmark(
        Checkpoint.open(options.checkpoint, platform),
        specs,
        options.probes or action_benchmark.DEFAULT_PROBES,
        options.seeds,
        options.device,
        options.dtype,
    )


def _header(options: argparse.Namespace, benchmark: ActionBenchmark) -> dict[str, Any]:
    """What all results in one file have in common."""
    from hbvla_ros.evaluation.versions import versions

    return {
        'benchmark': 'actions',
        'checkpoint': benchmark.checkpoint.identity,
        'frames': options.frames,
        'held_out': options.held_out,
        'device': options.device,
        'dtype': options.dtype,
        'versions': versions(),
    }


def _read_json(path: Path) -> dict[str, Any]:
    """The content of an earlier run's file.

    Raises:
        HbvlaError: it is not readable.
    """
    from hbvla_ros.errors import HbvlaError

    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise HbvlaError(f'{path}: not readable ({error}); name another --out') from error
    if not isinstance(content, dict):
        raise HbvlaError(f'{path}: holds no results of this benchmark; name another --out')
    return content


def _calibrate(
    options: argparse.Namespace, benchmark: ActionBenchmark, seed: int
) -> CalibrationSet:
    """Draw the frames of one seed."""
    from hbvla_ros.quantizing import read_calibration

    return read_calibration(
        options.calibration,
        benchmark.checkpoint,
        options.frames,
        seed,
        options.held_out,
        options.calibration_profile,
        options.instruction,
    )


class _Status:
    """What the pipeline tells, beside the live line of the combinations."""

    def __init__(self, reporter: Reporter, combination: str) -> None:
        self._reporter, self._combination = reporter, combination
        self._title, self._steps, self._done = '', 0, 0

    def stage(self, title: str, steps: int) -> None:
        """A new stage begins."""
        self._title, self._steps, self._done = title, steps, 0
        self._show()

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """One step of it is done."""
        self._done += 1
        self._show()

    def _show(self) -> None:
        self._reporter.status(f'{self._combination}: {self._title} {self._done}/{self._steps}')
