# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Action error of methods under each probe, by the real pipeline, at their stored bits."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import folder_bytes, packed_report
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.quantization.action_results import PROBE_COLUMNS, ActionResult
from hbvla_ros.quantization.calibrated import check_differentiable
from hbvla_ros.quantization.calibration import CalibrationSet
from hbvla_ros.quantization.layer_benchmark import check_each_once
from hbvla_ros.quantization.method_spec import MethodSpec
from hbvla_ros.quantization.pipeline import quantize_checkpoint
from hbvla_ros.quantization.progress import Progress, SilentProgress
from hbvla_ros.quantization.request import Request
from hbvla_ros.vla.checkpoint import Checkpoint

# Compared when nothing else is asked for.
DEFAULT_PROBES = ('none', 'block', 'action1', 'action2')
# Sizes that exist on networks of any width, which cannot be said of small budgets.
DEFAULT_METHODS = ('rtn', 'billm', 'bivlm', 'hbllm', 'hbvla', 'hbvla:best', 'signplane:1',
                   'signplane:1:best', 'signplane:2', 'dbf')  # fmt: skip


class ActionSpec(NamedTuple):
    """A method, and whether its scales are refined on the actions afterwards.

    Attributes:
        text: as it was written, such as ``hbvla:best`` or ``signplane:1.3+refine=200``.
        layers: the method for the layers.
        refine: steps of the refinement, 0 for none.
    """

    text: str
    layers: MethodSpec
    refine: int = 0

    @staticmethod
    def parse(text: str) -> ActionSpec:
        """From ``NAME[:BITS][:PRESET][:SETTING=VALUE...][+refine=STEPS]``.

        Raises:
            HbvlaError: no such method, preset or setting, or no number of steps.
        """
        layers, plus, suffix = text.partition('+')
        name, _, steps = suffix.partition('=')
        if plus and (name != 'refine' or not steps.isdecimal() or not int(steps)):
            raise HbvlaError(f'--methods {text}: after + stands refine=STEPS, at least 1')
        return ActionSpec(text, MethodSpec.parse(layers), int(steps) if plus else 0)


class Combination(NamedTuple):
    """One quantization of the benchmark.

    Attributes:
        spec: the method.
        probe: a name of ``PROBE_COLUMNS``.
        seed: of the draw of frames and of everything random in the method.
    """

    spec: ActionSpec
    probe: str
    seed: int

    def request(self, device: str = 'cpu', dtype: str = 'float32') -> Request:
        """What the pipeline is asked for; ``device`` and ``dtype`` as there."""
        column = PROBE_COLUMNS[self.probe]
        return Request(
            method=self.spec.layers.method.name,
            bits=self.spec.layers.bits,
            seed=self.seed,
            probe=column.probe,
            options=self.spec.layers.options,
            probe_settings=column.settings,
            device=device,
            dtype=dtype,
            refine=self.spec.refine,
        )

    def __str__(self) -> str:
        """For messages."""
        return f'{self.spec.text}  probe {self.probe}  seed {self.seed}'


# Gives the calibration of a seed.
Calibrate = Callable[[int], CalibrationSet]


@dataclass(frozen=True)
class ActionBenchmark:
    """Which methods meet which probes on one checkpoint.

    Attributes:
        checkpoint: the full-precision policy.
        specs: the methods.
        probes: names of ``PROBE_COLUMNS``. A method that makes the same of every Hessian is run
            once, without probe.
        seeds: each draws frames of its own.
        device: where it computes.
        dtype: type of the forward passes.
    """

    checkpoint: Checkpoint
    specs: Sequence[ActionSpec]
    probes: Sequence[str] = DEFAULT_PROBES
    seeds: Sequence[int] = (0,)
    device: str = 'cpu'
    dtype: str = 'float32'

    def check(self) -> None:
        """Refuse what cannot be run, before anything is computed.

        Raises:
            HbvlaError: unknown probe, nothing to do, or a request the pipeline would refuse.
        """
        for probe in self.probes:
            if probe not in PROBE_COLUMNS:
                raise HbvlaError(f'--probes {probe}: use some of {", ".join(PROBE_COLUMNS)}')
        for option, values in (
            ('--probes', self.probes),
            ('--seeds', self.seeds),
            ('--methods', [spec.text for spec in self.specs]),
        ):
            check_each_once(option, values)
        for combination in self.combinations():
            try:
                plan = combination.request(self.device, self.dtype).resolve()
            except HbvlaError as error:
                raise HbvlaError(f'{combination.spec.text}: {error}') from error
            check_differentiable(self.checkpoint, plan)

    def combinations(self) -> list[Combination]:
        """All that is to be run, seed by seed."""
        return [
            Combination(spec, probe, seed)
            for seed in self.seeds
            for spec in self.specs
            for probe in (self.probes if spec.layers.method.uses_hessian else ('none',))
        ]

    def run(
        self,
        calibrate: Calibrate,
        known: Sequence[ActionResult] = (),
        begin: Callable[[Combination], Progress] = lambda combination: SilentProgress(),
    ) -> Iterator[ActionResult]:
        """Run every combination that is not known yet.

        Args:
            calibrate: gives the calibration of a seed, with held-out frames.
            known: results of an earlier run, which are taken over where they answer exactly what
                is asked now.
            begin: told which combination begins; gives what the pipeline tells its progress to.

        Yields:
            The result of each combination, as soon as there is one.

        Raises:
            HbvlaError: see :meth:`check`, or the pipeline refuses.
        """
        self.check()
        for seed in self.seeds:
            calibration = calibrate(seed)
            digest = str(calibration.description['digest'])
            for combination in self.combinations():
                if combination.seed != seed:
                    continue
                asked = self._asked(combination)
                for result in known:
                    if (result.seed, result.calibration, result.asked) == (seed, digest, asked):
                        text, probe = combination.spec.text, combination.probe
                        yield dataclasses.replace(result, method=text, probe=probe)
                        break
                else:
                    yield self._quantize(combination, calibration, begin(combination))

    def _asked(self, combination: Combination) -> dict[str, Any]:
        description = combination.request(self.device, self.dtype).resolve().description()
        # As it comes back from a file: lists in the place of tuples.
        plain: dict[str, Any] = json.loads(json.dumps(description))
        return plain

    def _quantize(
        self, combination: Combination, calibration: CalibrationSet, progress: Progress
    ) -> ActionResult:
        """Quantize into a folder that is thrown away, and read from it what is stored."""
        request = combination.request(self.device, self.dtype)
        with tempfile.TemporaryDirectory(prefix='hbvla_bench_') as place:
            folder = Path(place) / 'quantized'
            start = time.perf_counter()
            try:
                manifest = quantize_checkpoint(
                    self.checkpoint, request, folder, calibration, progress
                ).manifest
            except HbvlaError as error:
                raise HbvlaError(f'{combination.spec.text}: {error}') from error
            seconds = time.perf_counter() - start
            if manifest.action_error is None:
                raise HbvlaError('--held-out: the action error needs at least 1 held-out frame')
            result = ActionResult(
                method=combination.spec.text,
                probe=combination.probe,
                seed=combination.seed,
                asked=self._asked(combination),
                calibration=str(calibration.description['digest']),
                stored_bits=packed_report(PackedFolder.open(folder)).stored_bits_per_weight,
                nominal_bits=manifest.nominal_bits_per_weight,
                folder_bytes=folder_bytes(folder),
                action_error=dict(manifest.action_error),
                seconds=round(seconds, 2),
            )
        _ = result.relative_rms  # Raises where it has no meaning, before hours are spent.
        return result
