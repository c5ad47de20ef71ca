# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What an evaluation consists of: units of work that do not depend on each other.

A unit is decided by its checkpoint, task, seeds and settings alone. In which order, in which
process or on which machine units run does not change their outcome, and a unit that is done need
not be done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import CAMERA_SIZE, EXECUTE, grouped

IN_PROCESS, OVER_ROS = 'in process', 'over ROS 2'
# Plain JSON types: ``seconds``; in closed loop ``episodes`` (records) and ``settings`` (what the
# unit found out about how it was run), else ``errors`` (sums).
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that is evaluated.

    Attributes:
        folder: its path.
        identity: name and digest, as chunks carry it.
        platform: platform name or file, for folders that hold none.
        base: base model's folder of an adapter.
    """

    folder: str
    identity: str
    platform: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Settings:
    """How episodes are run; everything here may change their outcome.

    Attributes:
        where: ``IN_PROCESS`` or ``OVER_ROS``.
        execute: rows of each chunk that are commanded (in process).
        max_seconds: simulated time limit of an episode, None for the task's own.
        parallel: episodes that share a policy call (in process).
        camera_size: height and width of the images, pixels.
        device: where the network runs (in process).
    """

    where: str = IN_PROCESS
    execute: int = EXECUTE
    max_seconds: float | None = None
    parallel: int = 1
    camera_size: int = CAMERA_SIZE
    device: str = 'cpu'

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """SHA-256 over all settings, hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Unit:
    """A group of episodes, or one episode of a reference along which actions are compared.

    Attributes:
        candidate: the checkpoint that is judged.
        task: name of the task.
        seeds: one an episode.
        reference: full-precision checkpoint that drives instead; None for closed loop.
    """

    candidate: Candidate
    task: str
    seeds: tuple[int, ...]
    reference: Candidate | None = None

    @property
    def key(self) -> str:
        """What decides the outcome besides settings, as one line of text."""
        along = self.reference.identity if self.reference else None
        return json.dumps([self.candidate.identity, self.task, along, *self.seeds])


def closed_loop_units(
    candidates: Sequence[Candidate], tasks: Sequence[str], seeds: Sequence[int], settings: Settings
) -> list[Unit]:
    """Every checkpoint in every task on every seed.

    Raises:
        HbvlaError: nothing to do, or a checkpoint or task that is named twice.
    """
    for what, names in (
        ('checkpoint', [one.identity for one in candidates]),
        ('task', list(tasks)),
    ):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise HbvlaError(f'{what} {twice[0]}: named twice')
    if not candidates or not tasks or not seeds or settings.parallel < 1:
        raise HbvlaError(
            f'{len(candidates)} checkpoints, {len(tasks)} tasks, {len(seeds)} episodes, '
            f'{settings.parallel} in parallel: at least one of each is needed'
        )
    return [
        Unit(candidate, task, tuple(group))
        for candidate in candidates
        for task in tasks
        for group in grouped(seeds, settings.parallel)
    ]


def comparison_units(
    candidates: Sequence[Candidate],
    reference: Candidate,
    tasks: Sequence[str],
    seeds: Sequence[int],
) -> list[Unit]:
    """Every checkpoint but the reference itself along the reference's episodes."""
    return [
        Unit(candidate, task, (seed,), reference)
        for candidate in candidates
        for task in tasks
        for seed in seeds
        if candidate.identity != reference.identity
    ]
