# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""All tasks, one line each."""

from __future__ import annotations

from typing import Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.tasks.base import Task
from hbvla_ros.sim.tasks.hand_over import HandOver
from hbvla_ros.sim.tasks.insertion import Insertion
from hbvla_ros.sim.tasks.pick_place import PickPlace
from hbvla_ros.sim.tasks.sequence import Sequence
from hbvla_ros.sim.tasks.stack import Stack
from hbvla_ros.sim.tasks.transfer_cube import TransferCube

DEFAULT_TASK = PickPlace.name

_TASKS: tuple[Task[Any, Any], ...] = (
    PickPlace(),
    Sequence(),
    Stack(),
    HandOver(),
    TransferCube(),
    Insertion(),
)  # fmt: skip


def task_names() -> tuple[str, ...]:
    """Names of all tasks."""
    return tuple(task.name for task in _TASKS)


def find_task(name: str) -> Task[Any, Any]:
    """The task of that name.

    Raises:
        HbvlaError: there is none; the line names those there are.
    """
    for task in _TASKS:
        if task.name == name:
            return task
    raise HbvlaError(f'task {name!r}: unknown; the tasks are {", ".join(task_names())}')
