# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a benchmark suite is: tasks, the scenes they are opened in, the policies that fit."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError

if TYPE_CHECKING:
    from hbvla_ros.policy import Platform

Values = NDArray[np.float64]


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite.

    Attributes:
        index: its number in the suite.
        name: its name in the suite's package.
        max_steps: control steps of the policy after which an episode has failed.
        trials: episodes of the published protocol.
    """

    index: int
    name: str
    max_steps: int
    trials: int


class Scene(abc.ABC):
    """One task, opened in its simulator."""

    @property
    @abc.abstractmethod
    def instruction(self) -> str:
        """The task in words; some tasks change it on the way."""

    @abc.abstractmethod
    def start(self, trial: int) -> None:
        """Begin an episode; the trial decides where everything is."""

    def skip(self, trial: int) -> None:  # noqa: B027 - most scenes are decided by the trial alone
        """Leave an episode out that an earlier run has done, with what it changes for the next."""

    @abc.abstractmethod
    def observe(self) -> tuple[dict[str, NDArray[np.uint8]], Values]:
        """Camera frames as the platform's transforms take them, and the proprioception (P,)."""

    @abc.abstractmethod
    def act(self, action: Values) -> tuple[bool, bool]:
        """Command one row (7,) of a chunk for one control step: (success now, episode over)."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the simulator."""


class Suite(abc.ABC):
    """A public benchmark.

    Attributes:
        name: as ``--suite`` has it.
        label: what is run of it, for titles and results.
        step: seconds of a control step.
        settings: conventions that decide a result, plain JSON types.
    """

    name: str
    label: str
    step: float
    settings: Mapping[str, Any]

    @abc.abstractmethod
    def fit(self, platform: Platform, keys: Sequence[str]) -> Platform:
        """The platform with the dataset statistics that belong to this suite.

        Args:
            platform: what the policy was trained for.
            keys: datasets that the checkpoint has statistics of.

        Raises:
            HbvlaError: the policy was trained for something else; says for what.
        """

    @abc.abstractmethod
    def tasks(self) -> Sequence[SuiteTask]:
        """What is to be run.

        Raises:
            HbvlaError: the package is not installed, or not set up.
        """

    @abc.abstractmethod
    def open(self, task: SuiteTask) -> Scene:
        """Open a task in its simulator."""


def require(condition: bool, platform: Platform, suite: str, what: str) -> None:
    """Refuse a platform, naming what is wrong with it.

    Raises:
        HbvlaError: the condition does not hold.
    """
    if not condition:
        raise HbvlaError(f'platform {platform.name}: {what}; not a policy for {suite}')
