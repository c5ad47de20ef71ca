# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Says how far ``hbvla eval`` is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbvla_ros.cli.progress import Reporter
from hbvla_ros.evaluation.plan import Outcome, Unit
from hbvla_ros.evaluation.statistics import SuccessRate
from hbvla_ros.evaluation.work_file import WorkFile


@dataclass
class UnitProgress:
    """Counts what is done and says it.

    Attributes:
        reporter: says it.
        units: of the plan.
        known: keys of those that an earlier run finished.
        counts: outcomes so far, by checkpoint and task.
    """

    reporter: Reporter
    units: Sequence[Unit]
    known: set[str]
    counts: dict[tuple[str, str], list[bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin the bar."""
        closed = [unit for unit in self.units if unit.reference is None]
        self._wanted = len(closed) and sum(
            len(unit.seeds) for unit in closed if _pair(unit) == _pair(closed[0])
        )
        pairs = dict.fromkeys(_pair(unit) for unit in closed)
        self._alone = len(pairs) == 1
        what = (
            f'{closed[0].candidate.folder}, {closed[0].task}'
            if self._alone
            else (f'{len(pairs)} checkpoints x tasks, {self._wanted} episodes each')
        )
        self.reporter.begin(what, sum(len(unit.seeds) for unit in self.units))
        taken = sum(len(unit.seeds) for unit in self.units if unit.key in self.known)
        if taken:
            self.reporter.say(f'{taken} episodes were finished by an earlier run')

    def __call__(self, unit: Unit, outcome: Outcome) -> None:
        """A unit is done."""
        for _ in unit.seeds:
            self.reporter.advance()
        if 'episodes' not in outcome:
            return
        for record in outcome['episodes']:
            if self._alone and unit.key not in self.known:
                self._say(record)
        done = self.counts.setdefault(_pair(unit), [])
        done += [record['success'] for record in outcome['episodes']]
        rate = SuccessRate.of(done)
        where = f'{Path(unit.candidate.folder).name}, {unit.task}'
        self.reporter.status(f'{where}: {rate}')
        if len(done) == self._wanted and not self._alone:
            self.reporter.say(f'{where}: {rate}')

    def stopped(self, work: WorkFile | None) -> None:
        """The run ends early: say what is left of it."""
        if work is not None and work.known:
            work.close()
            kept = sum(len(unit.seeds) for unit in self.units if unit.key in work.known)
            whole = sum(len(unit.seeds) for unit in self.units)
            self.reporter.say(
                f'{kept} of {whole} episodes are kept in {work.path}; --resume goes on with them'
            )

    def _say(self, record: dict[str, Any]) -> None:
        outcome = 'success' if record['success'] else 'failure'
        self.reporter.say(
            f'  seed {record["seed"]}  {record["instruction"]}: {outcome} '
            f'after {record["duration_s"]:.1f} s, {record["chunks"]} chunks'
        )


def _pair(unit: Unit) -> tuple[str, str]:
    return unit.candidate.identity, unit.task
