# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Output error of methods on the synthetic layers, at the bits that they really store."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import stored_bits_per_weight
from hbvla_ros.quantization.method_spec import MethodSpec
from hbvla_ros.quantization.options import check_seed
from hbvla_ros.quantization.synthetic import (
    KINDS,
    STRUCTURED_KINDS,
    TOKENS,
    SyntheticLayer,
    make_layer,
    output_error,
)


@dataclass(frozen=True)
class LayerResult:
    """What a method made of one layer.

    Attributes:
        kind: kind of the layer.
        seed: seed of the layer and of the method.
        error: output error on the held-out tokens, relative.
        stored_bits: stored bits per weight, everything counted.
        nominal_bits: bits per weight as papers print them.
        seconds: time of the quantization.
    """

    kind: str
    seed: int
    error: float
    stored_bits: float
    nominal_bits: float
    seconds: float


@dataclass
class MethodResults:
    """All results of one method.

    Attributes:
        spec: the method.
        results: one for each kind and seed.
    """

    spec: MethodSpec
    results: list[LayerResult] = field(default_factory=list)

    @property
    def stored_bits(self) -> float:
        """Mean over the layers, which have the same number of weights."""
        return sum(result.stored_bits for result in self.results) / len(self.results)

    def error(self, kind: str) -> float:
        """Geometric mean over the seeds."""
        return _geometric_mean(r.error for r in self.results if r.kind == kind)

    @property
    def geometric_mean(self) -> float | None:
        """Over the structured layers, all seeds; None where there are none of these."""
        errors = [r.error for r in self.results if r.kind in STRUCTURED_KINDS]
        return _geometric_mean(errors) if errors else None

    def to_json(self) -> dict[str, Any]:
        """Plain values for the JSON output."""
        return {
            'method': self.spec.text,
            'bits_asked': self.spec.bits,
            'options': dataclasses.asdict(self.spec.options),
            'stored_bits': self.stored_bits,
            'most_stored_bits': max(result.stored_bits for result in self.results),
            'geometric_mean': self.geometric_mean,
            'errors': {kind: self.error(kind) for kind in _in_order(r.kind for r in self.results)},
            'layers': [dataclasses.asdict(result) for result in self.results],
        }


@dataclass(frozen=True)
class LayerBenchmark:
    """Which methods meet which layers.

    Attributes:
        specs: the methods.
        kinds: kinds of the synthetic layers.
        rows: outputs of each layer.
        columns: inputs of each layer.
        seeds: one layer of each kind for each seed.
        tokens: calibration tokens, and as many held-out ones.
        device: where it computes.
    """

    specs: Sequence[MethodSpec]
    kinds: Sequence[str] = KINDS
    rows: int = 1024
    columns: int = 1024
    seeds: Sequence[int] = (0, 1, 2)
    tokens: int = TOKENS
    device: str = 'cpu'

    def check(self) -> None:
        """Refuse what cannot be run, before anything is computed.

        Raises:
            HbvlaError: unknown kind, nothing to do, or bits that a method cannot meet.
        """
        for kind in self.kinds:
            if kind not in KINDS:
                raise HbvlaError(f'--kinds {kind}: use some of {", ".join(KINDS)}')
        for option, value in (('--rows', self.rows), ('--columns', self.columns)):
            if value < 2:
                raise HbvlaError(f'{option} {value}: a layer has at least 2')
        if self.tokens < 100:
            raise HbvlaError(f'--tokens {self.tokens}: at least 100 are needed')
        for seed in self.seeds:
            check_seed(seed)
        for option, values in (
            ('--kinds', self.kinds),
            ('--seeds', self.seeds),
            ('--methods', [spec.text for spec in self.specs]),
        ):
            check_each_once(option, values)
        for spec in self.specs:
            spec.for_layer(self.rows, self.columns, 0)

    def run(self, step: Callable[[str], None] = lambda text: None) -> list[MethodResults]:
        """Quantize every layer with every method.

        Args:
            step: told about each layer that is done.

        Raises:
            HbvlaError: see :meth:`check`.
        """
        self.check()
        all_results = [MethodResults(spec) for spec in self.specs]
        for layer, seed in self._layers():
            for results in all_results:
                result = _quantize(results.spec, layer, seed)
                results.results.append(result)
                step(
                    f'{results.spec.text}  {layer.kind}  seed {seed}: error {result.error:.4f} at '
                    f'{result.stored_bits:.3f} stored bits, {result.seconds:.1f} s'
                )
        return all_results

    def to_json(self, results: Iterable[MethodResults]) -> dict[str, Any]:
        """Plain values for the JSON output; same seeds, same values but for ``seconds``."""
        return {
            'benchmark': 'layers',
            'rows': self.rows,
            'columns': self.columns,
            'tokens': self.tokens,
            'seeds': list(self.seeds),
            'kinds': list(self.kinds),
            'device': self.device,
            'methods': [result.to_json() for result in results],
        }

    def _layers(self) -> Iterator[tuple[SyntheticLayer, int]]:
        """Each layer with its seed, one at a time."""
        for kind in self.kinds:
            for seed in self.seeds:
                layer = make_layer(kind, self.rows, self.columns, seed, self.tokens)
                yield layer.to(self.device), seed


def check_each_once(option: str, values: Sequence[object]) -> None:
    """Refuse an option of a benchmark that names nothing, or something twice.

    Args:
        option: as it is typed, for the message.
        values: what it names.

    Raises:
        HbvlaError: none, or one of them twice.
    """
    if not values or len(set(values)) < len(values):
        raise HbvlaError(f'{option}: name each once, and at least one')


def markdown_table(results: Sequence[MethodResults]) -> str:
    """The results as a Markdown table: errors are geometric means over the seeds."""
    kinds = _in_order(r.kind for r in results[0].results)
    lines = [['method', 'stored bits', *kinds, 'geometric mean'], ['---'] * (len(kinds) + 3)]
    for result in results:
        mean = result.geometric_mean
        lines.append(
            [
                f'`{result.spec.text}`',
                f'{result.stored_bits:.3f}',
                *(f'{result.error(kind):.4f}' for kind in kinds),
                '-' if mean is None else f'{mean:.4f}',
            ]
        )
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _quantize(spec: MethodSpec, layer: SyntheticLayer, seed: int) -> LayerResult:
    """Quantize one layer and measure what is stored, not what the method believes it stored."""
    rows, columns = layer.weight.shape
    options = spec.for_layer(rows, columns, seed)
    start = time.perf_counter()
    quantized = spec.method.quantize(layer.weight, layer.calibration, options)
    seconds = time.perf_counter() - start
    return LayerResult(
        layer.kind,
        seed,
        output_error(layer, quantized.reconstruct()),
        stored_bits_per_weight([quantized]),
        quantized.nominal_bits,
        round(seconds, 3),
    )


def _geometric_mean(values: Iterable[float]) -> float:
    listed = list(values)
    if min(listed) <= 0:  # a layer that is met exactly
        return 0.0
    return math.exp(sum(math.log(value) for value in listed) / len(listed))


def _in_order(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of its first appearance."""
    return list(dict.fromkeys(names))
