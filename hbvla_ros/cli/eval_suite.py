# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla eval --suite``: a checkpoint in LIBERO or SimplerEnv, where they are installed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError

if TYPE_CHECKING:
    from hbvla_ros.evaluation.suites.base import Suite
    from hbvla_ros.evaluation.suites.run import SuiteEvaluation
    from hbvla_ros.evaluation.work_file import WorkFile
    from hbvla_ros.policy import Platform, Policy

# OpenVLA-OFT's evaluations are run with it.
SEED = 7
# Options of ``hbvla eval`` that a suite has no use for.
_NOT_WITH_SUITE = ('ros', 'workers', 'ray', 'parallel', 'max_seconds', 'against', 'reference',
                   'markdown', 'plots')  # fmt: skip


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this file to ``hbvla eval``."""
    group = parser.add_argument_group('public benchmarks')
    group.add_argument(
        '--suite', choices=('libero', 'simpler'),
        help='run LIBERO or SimplerEnv through its own package instead; --task is then one of its '
        'tasks (default all), --episodes counts those of each task (default all of the published '
        f'ones), --seed is {SEED} by default',
    )  # fmt: skip
    group.add_argument(
        '--task-suite', metavar='NAME',
        help='with --suite libero: libero_spatial, libero_object, libero_goal, libero_10 or '
        'libero_90 (default: the one that the checkpoint was trained on)',
    )  # fmt: skip


def run_suite(options: argparse.Namespace) -> int:
    """Run the suite and print the success rates with their intervals.

    Args:
        options: of ``hbvla eval``, None where nothing was given.

    Raises:
        HbvlaError: bad options, a checkpoint for something else, a package is not installed.
    """
    from hbvla_ros.cli.output import check_file
    from hbvla_ros.cli.progress import Reporter
    from hbvla_ros.evaluation.report import write_atomically
    from hbvla_ros.evaluation.suites.run import check_trials, evaluate_suite
    from hbvla_ros.evaluation.versions import versions
    from hbvla_ros.policy import Policy, dtype_for
    from hbvla_ros.vla.platform import resolve_platform

    checkpoint = _check_options(options)
    if options.out is not None:
        check_file(options.out)
    episodes, seed = options.episodes, SEED if options.seed is None else options.seed
    platform = resolve_platform(checkpoint, options.platform)
    # What the suites' packages print belongs to the progress, not to the result.
    with contextlib.redirect_stdout(sys.stderr), Reporter() as reporter:
        suite, platform = _suite(options, checkpoint, platform, seed)
        tasks = suite.tasks()
        check_trials(suite, tasks, episodes)
        device = options.device or 'cpu'
        policy = Policy.load(
            checkpoint, platform, dtype=dtype_for(device), device=device,
            base=options.base, seed=seed,
        )  # fmt: skip
        total = sum(episodes or one.trials for one in tasks)
        reporter.begin(f'{checkpoint}, {suite.label}', total)
        store = _store(options, policy, suite, seed)
        evaluation = evaluate_suite(policy, suite, episodes, seed, reporter.episode, store)
    result = {
        **evaluation.to_json(),
        'folder': str(checkpoint),
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'versions': {**versions(), **_packages()},
    }
    text = json.dumps(result, indent=2) + '\n'
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, text)
    if store is not None:
        store.finish()
    print(text if options.json else _summary(evaluation), end='')
    return 0


def _check_options(options: argparse.Namespace) -> Path:
    """The one checkpoint; options that would be passed over in silence are refused."""
    for name in _NOT_WITH_SUITE:
        if getattr(options, name) not in (None, False):
            raise HbvlaError(f'--{name.replace("_", "-")}: not with --suite; leave it out')
    if options.resume and options.out is None:
        raise HbvlaError('--resume: name the result file of the run that was stopped with --out')
    for name in ('checkpoints', 'tasks'):
        given = getattr(options, name) or []
        if len(given) > 1:
            raise HbvlaError(
                f'{len(given)} {name}: --suite takes one at a time; run the command once for each'
            )
    return Path(options.checkpoints[0])


def _suite(
    options: argparse.Namespace, checkpoint: Path, platform: Platform, seed: int
) -> tuple[Suite, Platform]:
    """The suite that was asked for, and the platform with its statistics."""
    from hbvla_ros.evaluation.suites.libero import LiberoSuite, task_suite_of
    from hbvla_ros.evaluation.suites.simpler import SimplerSuite

    keys = _datasets(checkpoint)
    task = options.tasks[0] if options.tasks else None
    suite: Suite
    if options.suite == 'libero':
        suite = LiberoSuite(options.task_suite or task_suite_of(platform, keys), task)
    elif options.task_suite is not None:
        raise HbvlaError('--task-suite: only with --suite libero; leave it out')
    else:
        suite = SimplerSuite(platform.robot, task, seed)
    return suite, suite.fit(platform, keys)


class _Kept:
    """Finished episodes in the work file beside ``--out``."""

    def __init__(self, work: WorkFile, identity: str) -> None:
        self._work, self._identity = work, identity

    def get(self, task: str, trial: int) -> Mapping[str, Any] | None:
        """See :class:`hbvla_ros.evaluation.suites.run.Store`."""
        return self._work.known.get(self._key(task, trial))

    def put(self, task: str, trial: int, record: Mapping[str, Any]) -> None:
        """See :class:`hbvla_ros.evaluation.suites.run.Store`."""
        self._work.put(self._key(task, trial), dict(record))

    def finish(self) -> None:
        """The result is written."""
        self._work.finish()

    def _key(self, task: str, trial: int) -> str:
        # Built like the keys of other work files: what is run, how, and the episodes.
        return json.dumps([self._identity, task, 'suite', trial])


def _store(options: argparse.Namespace, policy: Policy, suite: Suite, seed: int) -> _Kept | None:
    """Where finished episodes go, None without ``--out``."""
    from hbvla_ros.evaluation.work_file import WorkFile, header, work_path

    if options.out is None:
        return None
    settings = {'suite': suite.name, 'seed': seed, 'device': options.device or 'cpu',
                'platform': policy.platform.to_json(), **suite.settings}  # fmt: skip
    checkpoints = {str(options.checkpoints[0]): policy.checkpoint}
    work = WorkFile(work_path(options.out), header(settings, checkpoints, {}), options.resume)
    return _Kept(work, policy.checkpoint)


def _datasets(checkpoint: Path) -> Sequence[str]:
    """Names of the datasets that a checkpoint has statistics of."""
    from hbvla_ros.vla.config import read_config
    from hbvla_ros.vla.normalisation import read_statistics

    config = read_config(checkpoint) if (checkpoint / 'config.json').is_file() else None
    return sorted(read_statistics(checkpoint, config))


def _packages() -> dict[str, str]:
    """Versions of what the suites consist of, as far as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ('libero', 'robosuite', 'bddl', 'simpler_env', 'mani_skill2_real2sim', 'sapien'):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _summary(evaluation: SuiteEvaluation) -> str:
    """One line a task and one for all of them."""
    rates = {**evaluation.by_task(), evaluation.task: evaluation.success}
    width = max(len(name) for name in rates)
    return ''.join(f'{name:<{width}}  {rate}\n' for name, rate in rates.items())
