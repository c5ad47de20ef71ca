# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The run behind ``hbvla eval``: from what was prepared to the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbvla_ros.cli.eval_progress import UnitProgress
from hbvla_ros.cli.progress import Reporter
from hbvla_ros.evaluation import plan, results
from hbvla_ros.evaluation.harness import Execution
from hbvla_ros.evaluation.harness import run as run_harness
from hbvla_ros.evaluation.plan import Candidate, Outcome, Settings, Unit
from hbvla_ros.evaluation.work_file import WorkFile, header, work_path


@dataclass
class Evaluated:
    """A run that came to its end.

    Attributes:
        report: ``results``, ``totals`` and ``settings``.
        is_single: whether it is one checkpoint in one task (and perhaps its reference).
        work: its work file, if any.
    """

    report: dict[str, Any]
    is_single: bool
    work: WorkFile | None

    def finish(self) -> None:
        """The result is written: the work file may be begun afresh by the next run."""
        if self.work is not None:
            self.work.finish()


@dataclass
class Prepared:
    """Everything that is known, and refused, before the first episode.

    Attributes:
        candidates: checkpoints to run; a folder of ``--against`` comes first.
        tasks: their names.
        seeds: of the episodes.
        settings: how they run.
        execution: where they run.
        digests: task to digest.
        sizes: identity to bits and bytes.
        against: identity of the checkpoint that the others are compared with, if any.
        earlier: its results, where they come from a file.
        reference: checkpoint that drives for the action error, if any.
        reference_seeds: that it drives.
        out: result file, if any.
        resume: whether to go on with what is beside it.
    """

    candidates: list[Candidate]
    tasks: list[str]
    seeds: Sequence[int]
    settings: Settings
    execution: Execution
    digests: dict[str, str]
    sizes: dict[str, dict[str, Any]]
    against: str | None
    earlier: list[dict[str, Any]]
    reference: Candidate | None
    reference_seeds: Sequence[int]
    out: Path | None
    resume: bool

    @property
    def is_single(self) -> bool:
        """Whether one checkpoint is judged in one task."""
        judged = [one for one in self.candidates if one.identity != self.against]
        return len(judged) == 1 and len(self.tasks) == 1

    def run(self) -> Evaluated:
        """Run all episodes and put the report together."""
        units = plan.closed_loop_units(self.candidates, self.tasks, self.seeds, self.settings)
        if self.reference is not None:
            units += plan.comparison_units(
                self.candidates, self.reference, self.tasks, self.reference_seeds
            )
        work = self._work_file()
        with Reporter() as reporter:
            known = set(work.known) if work else set()
            progress = UnitProgress(reporter, units, known)
            started = time.monotonic()
            try:
                outcomes = run_harness(
                    units, self.settings, self.execution, work, progress, reporter.status
                )
            except BaseException:
                progress.stopped(work)
                raise
        elapsed = time.monotonic() - started
        worked = sum(one['seconds'] for unit, one in outcomes.items() if unit.key not in known)
        report = self._report(units, outcomes, worked / elapsed if worked else 1.0)
        return Evaluated(report, self.is_single, work)

    def _work_file(self) -> WorkFile | None:
        if self.out is None:
            return None
        known = [*self.candidates, *([self.reference] if self.reference else [])]
        checkpoints = {str(Path(one.folder).resolve()): one.identity for one in known}
        content = header(self.settings.to_json(), checkpoints, self.digests)
        return WorkFile(work_path(self.out), content, self.resume)

    def _report(
        self, units: Sequence[Unit], outcomes: dict[Unit, Outcome], at_a_time: float
    ) -> dict[str, Any]:
        found = results.task_results(outcomes, units, self.settings, self.digests, at_a_time)
        sums = results.error_sums(outcomes)
        totals = results.totals(found, sums)
        if self.reference is not None:
            results.add_action_errors(found, sums, self.reference.identity)
        if self.earlier:
            found = [*self.earlier, *found]
            totals = [*results.totals(self.earlier, {}), *totals]
        if self.against is not None:
            theirs = [one for one in found if one['checkpoint'] == self.against]
            results.add_pairs(found, totals, theirs)
        for row in totals:
            row.update(self.sizes.get(row['checkpoint'], {}))
        return {
            'results': found,
            'totals': totals,
            'settings': self.settings.to_json(),
            'digests': {'tasks': self.digests, 'settings': self.settings.digest()},
        }
