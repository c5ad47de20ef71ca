# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The run behind ``hbvla eval``: from its options to the report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbvla_ros.cli.progress import Reporter
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import plan, results
from hbvla_ros.evaluation.action_error import check_comparable
from hbvla_ros.evaluation.closed_loop import PARALLEL, check_platform, step_limit
from hbvla_ros.evaluation.digests import task_digest
from hbvla_ros.evaluation.episode import evaluation_seeds
from hbvla_ros.evaluation.executors import default_workers
from hbvla_ros.evaluation.harness import Execution
from hbvla_ros.evaluation.harness import run as run_harness
from hbvla_ros.evaluation.plan import Candidate, Outcome, Settings, Unit
from hbvla_ros.evaluation.statistics import SuccessRate
from hbvla_ros.evaluation.work_file import WorkFile, header, work_path
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task, task_names


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
            progress = _Progress(reporter, units, known)
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


@dataclass
class _Progress:
    """Counts what is done and says it."""

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


def prepare(options: argparse.Namespace) -> Prepared:
    """Check everything that can be checked before the first episode.

    Raises:
        HbvlaError: unknown task, seeds of training, a checkpoint for another robot, a reference
            that does not fit, no such device, Ray that is not installed.
    """
    from hbvla_ros.policy import check_device

    tasks = _tasks(options.tasks)
    device = options.device or 'cpu'
    check_device(device)
    folders, earlier_file = list(options.checkpoints), None
    if options.against is not None:
        if options.against.is_dir():
            folders = [one for one in folders if one.resolve() != options.against.resolve()]
            folders.insert(0, options.against)
        else:
            earlier_file = options.against
    candidates = [_candidate(folder, options) for folder in folders]
    reference = None
    if options.reference is not None:
        reference = _candidate(options.reference, options, [one.folder for one in candidates])
        _check_reference(candidates, reference)
    for candidate in [*candidates, *([reference] if reference else [])]:
        seeds = evaluation_seeds(options.episodes, options.seed, Path(candidate.folder))
    settings = _settings(options, device)
    for task in tasks:
        step_limit(task, 25.0, settings.max_seconds)
    digests = {task: task_digest(task) for task in tasks}
    against, earlier = None, []
    if earlier_file is not None:
        names = [one.identity for one in candidates]
        earlier = results.earlier_reference(earlier_file, tasks, seeds, digests, names)
        against = earlier[0]['checkpoint']
    elif options.against is not None:
        against = candidates[0].identity
    if len(candidates) == (against == candidates[0].identity):
        raise HbvlaError(f'--against {options.against}: is the only checkpoint; name another one')
    return Prepared(
        candidates=candidates,
        tasks=tasks,
        seeds=seeds,
        settings=settings,
        execution=_execution(options, device),
        digests=digests,
        sizes={one.identity: size_of(Path(one.folder), options.base) for one in candidates},
        against=against,
        earlier=earlier,
        reference=reference,
        reference_seeds=seeds[: options.reference_episodes],
        out=options.out,
        resume=options.resume,
    )


def _tasks(asked: list[str] | None) -> list[str]:
    if asked and 'all' in asked:
        return list(task_names())
    names = asked or [DEFAULT_TASK]
    for name in names:
        find_task(name)
    return names


def _settings(options: argparse.Namespace, device: str) -> Settings:
    if options.ros:
        return Settings(where=plan.OVER_ROS, max_seconds=options.max_seconds)
    return Settings(
        max_seconds=options.max_seconds, parallel=options.parallel or PARALLEL, device=device
    )


def _execution(options: argparse.Namespace, device: str) -> Execution:
    if options.ray:
        from hbvla_ros.evaluation.over_ray import check_cluster

        check_cluster()
        return Execution(options.workers, ray=True)
    if options.ros:
        # For the episodes of a reference, which need no graph.
        return Execution(default_workers('cpu'))
    workers = options.workers
    return Execution(default_workers(device) if workers is None else workers)


def _candidate(folder: Path, options: argparse.Namespace, known: Sequence[str] = ()) -> Candidate:
    """A checkpoint that fits the simulated robot.

    Raises:
        HbvlaError: no such folder, or trained for another robot or other cameras.
    """
    from hbvla_ros.vla.checkpoint import folder_identity
    from hbvla_ros.vla.platform import resolve_platform

    if not folder.is_dir():
        raise HbvlaError(f'{folder}: no such checkpoint folder')
    check_platform(resolve_platform(folder, options.platform))
    base = None if options.base is None else str(options.base)
    return Candidate(str(folder), folder_identity(folder), options.platform, base)


def _check_reference(candidates: Sequence[Candidate], reference: Candidate) -> None:
    from hbvla_ros.vla.platform import resolve_platform

    its = resolve_platform(Path(reference.folder), reference.platform)
    for one in candidates:
        mine = resolve_platform(Path(one.folder), one.platform)
        check_comparable(mine, its, (one.identity, reference.identity))
    if all(one.identity == reference.identity for one in candidates):
        raise HbvlaError(
            f'--reference {reference.folder}: is the only checkpoint; name a quantized one as well'
        )


def size_of(folder: Path, base: Path | None) -> dict[str, Any]:
    """Bits and bytes of a checkpoint folder; an adapter has those of its base.

    Args:
        folder: full precision, an adapter, or deployed (whose files are checked).
        base: base model's folder of an adapter.

    Raises:
        HbvlaError: a damaged folder.
    """
    from hbvla_ros.packed.accounting import full_precision_report, packed_report
    from hbvla_ros.packed.manifest import MANIFEST_NAME
    from hbvla_ros.packed.reader import PackedFolder

    if (folder / MANIFEST_NAME).is_file():
        size = packed_report(PackedFolder.open(folder))
    else:
        has_weights = any(folder.glob('model*.safetensors'))
        size = full_precision_report(folder if has_weights or base is None else base)
    return {
        'method': size.method,
        'stored_bits_per_weight': size.stored_bits_per_weight,
        'nominal_bits_per_weight': size.nominal_bits_per_weight,
        'folder_bytes': size.total_bytes,
    }
