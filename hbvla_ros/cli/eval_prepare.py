# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From the options of ``hbvla eval`` to a run; refuses what can be refused before an episode."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbvla_ros.cli.eval_run import Prepared
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import plan, results
from hbvla_ros.evaluation.action_error import check_comparable
from hbvla_ros.evaluation.closed_loop import PARALLEL, check_platform, step_limit
from hbvla_ros.evaluation.digests import task_digest
from hbvla_ros.evaluation.episode import evaluation_seeds
from hbvla_ros.evaluation.executors import default_workers
from hbvla_ros.evaluation.harness import Execution
from hbvla_ros.evaluation.plan import Candidate, Settings
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task, task_names


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
