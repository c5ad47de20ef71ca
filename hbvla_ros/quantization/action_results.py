# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Results of the benchmark of actions: kept in a file, taken over from it, shown as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hbvla_ros.errors import HbvlaError


class ProbeColumn(NamedTuple):
    """A probe that methods are compared under.

    Attributes:
        heading: of its column in the table.
        probe: what ``hbvla quantize --probe`` calls it.
        settings: what ``--probe-set`` would say.
    """

    heading: str
    probe: str
    settings: tuple[str, ...] = ()


PROBE_COLUMNS = {
    'none': ProbeColumn('none', 'none'),
    'block': ProbeColumn('block', 'parity'),
    'block-all': ProbeColumn('block, all layers', 'block'),
    'action1': ProbeColumn('action 1', 'action', ('power=1',)),
    'action2': ProbeColumn('action 2', 'action', ('power=2',)),
}


@dataclass(frozen=True)
class ActionResult:
    """What came out of one combination.

    Attributes:
        method: text of its specification.
        probe: a name of ``PROBE_COLUMNS``.
        seed: of the draw of frames and of everything random in the method.
        asked: method, bits and all options of method and probe, by the names of the flags.
        calibration: digest over the frames it was calibrated and judged on.
        stored_bits: stored bits per weight, from the bytes in the file.
        nominal_bits: bits per weight as papers print them.
        folder_bytes: all bytes of the deployed folder.
        action_error: see :func:`hbvla_ros.quantization.result.action_error`.
        seconds: of the whole pipeline, its full-precision pass and the judging included.
    """

    method: str
    probe: str
    seed: int
    asked: dict[str, Any]
    calibration: str
    stored_bits: float
    nominal_bits: float
    folder_bytes: int
    action_error: dict[str, Any]
    seconds: float

    @property
    def relative_rms(self) -> float:
        """Root mean square of the action error over the spread of the wanted actions.

        Raises:
            HbvlaError: the full-precision network wants the same on every frame.
        """
        value = self.action_error['relative_rms']
        if value is None:
            raise HbvlaError(
                '--held-out: the policy wants the same actions on all held-out frames, which no '
                'error can be related to; hold out more frames'
            )
        return float(value)


def merged(known: Sequence[ActionResult], found: Sequence[ActionResult]) -> list[ActionResult]:
    """Results of earlier runs in their order, replaced where this run has them; then new ones."""
    results = {(one.method, one.probe, one.seed): one for one in known}
    results.update({(one.method, one.probe, one.seed): one for one in found})
    return list(results.values())


def read_results(
    content: Mapping[str, Any], header: Mapping[str, Any], source: str
) -> list[ActionResult]:
    """Results in the JSON of an earlier run.

    Args:
        content: the JSON.
        header: what the results of the present run have in common.
        source: name of the file, for messages.

    Raises:
        HbvlaError: it is none of this benchmark, or was made under other conditions.
    """
    for key, value in _flat(header).items():
        found = _flat(content).get(key)
        if found != value:
            raise HbvlaError(
                f'{source}: was made with another {key}: {found!r} instead of {value!r}; name '
                'another --out'
            )
    try:
        return [ActionResult(**one) for one in content['results']]
    except (KeyError, TypeError) as error:
        raise HbvlaError(
            f'{source}: holds no results of this benchmark ({error}); name another --out'
        ) from error


def markdown_table(results: Sequence[ActionResult]) -> str:
    """Mean relative RMS action error, a line a method, a column a probe.

    Stored bits are the most that any run of the line took: budgets are shared differently under
    different probes.
    """
    probes = [name for name in PROBE_COLUMNS if any(one.probe == name for one in results)]
    headings = [PROBE_COLUMNS[name].heading for name in probes]
    lines = [['method', 'stored bits', *headings], ['---'] * (len(probes) + 2)]
    for method in dict.fromkeys(one.method for one in results):
        rows = [one for one in results if one.method == method]
        cells = [f'`{method}`', f'{max(one.stored_bits for one in rows):.3f}']
        for probe in probes:
            errors = [one.relative_rms for one in rows if one.probe == probe]
            cells.append(f'{sum(errors) / len(errors):.4f}' if errors else '-')
        lines.append(cells)
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries, those of mappings one by one."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update({f'{key}.{inner}': one for inner, one in value.items()})
        else:
            flat[key] = value
    return flat
