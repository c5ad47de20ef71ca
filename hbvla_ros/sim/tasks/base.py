# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a task is. Read this before writing one.

A task is a stateless object. It names its props, draws a :class:`Layout` from a seed, and follows
an episode with an immutable :class:`Progress` that the simulation saves and restores with the
physics. To add a task:

1. ``tasks/NAME.py``: a :class:`Task` with ``name``, ``stages``, ``max_seconds`` and ``props``, and
   its line in ``tasks/registry.py``. New kinds of props are made with ``objects.Prop``; a prop's
   name means the same thing in every task, down to a few millimetres.
2. ``sample`` draws everything from the generator it is given, and nothing from elsewhere. The
   simulation then draws the start pose of the arms from the same generator.
3. ``track`` runs after every control step. It may remember in its progress what happened (the
   order in which objects arrived, say), because success and stages may depend on the past.
4. ``experts/NAME.py``: a memoryless expert and its line in ``experts/registry.py``. It must not
   use the progress: a policy sees the scene of now alone, and so must the one it learns from.
5. ``target`` and ``goal`` say what the arms should move now and where to, for the auxiliary
   losses of training; also from the scene of now alone.

The frame: x from the left arm's base (-0.469, 0.5) to the right arm's (0.469, 0.5), y away from
the high camera, z up from the table top. Lengths in m, quaternions w first.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import Prop

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView


@dataclass(frozen=True, eq=False)
class Layout:
    """What one seed decides; a task adds what it needs in a subclass.

    Attributes:
        instruction: the sentence the policy gets.
        poses: float64 (props, 7), x, y, z in m and quaternion of every prop, in the order of
            ``Task.props``.
    """

    instruction: str
    poses: NDArray[np.float64]


@dataclass(frozen=True)
class Progress:
    """How far an episode is; a task adds what it must remember in a subclass.

    Attributes:
        best_stage: furthest stage so far, an index into ``Task.stages``.
        done_since: time in s since which the task has been done without a break, else None.
    """

    best_stage: int = 0
    done_since: float | None = None


LayoutT = TypeVar('LayoutT', bound=Layout)
ProgressT = TypeVar('ProgressT', bound=Progress)


class Task(ABC, Generic[LayoutT, ProgressT]):
    """One language-conditioned task.

    Attributes:
        name: as on the command line and in file names.
        stages: names of the stages; 0 is 'nothing' and the last one is reached when the task is
            done, if only for an instant.
        max_seconds: time limit of an episode, about three times what the expert takes.
        props: what the scene holds besides the robot: the model has one free joint for each
            movable prop, in this order, after the 16 robot joints.
        stay_seconds: how long the task must stay done before it counts.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[str, ...]]
    max_seconds: ClassVar[float]
    props: ClassVar[tuple[Prop, ...]]
    stay_seconds: ClassVar[float] = 0.28

    @property
    @abstractmethod
    def instructions(self) -> tuple[str, ...]:
        """Every sentence that a layout may ask for."""

    @abstractmethod
    def sample(self, random: np.random.Generator) -> LayoutT:
        """Draw what is asked and where everything is."""

    @abstractmethod
    def start(self, layout: LayoutT) -> ProgressT:
        """The progress at the start of an episode."""

    @abstractmethod
    def track(self, view: SceneView, layout: LayoutT, progress: ProgressT) -> ProgressT:
        """The progress one control step later; ``view`` shows the scene of now.

        See :func:`updated_since` for ``done_since``.
        """

    @abstractmethod
    def target(self, view: SceneView, layout: LayoutT) -> str | None:
        """Name of the prop to be moved now, from the scene alone; None when there is none."""

    def goal(self, view: SceneView, layout: LayoutT) -> NDArray[np.float64] | None:
        """Where the target belongs: (3,) m, from the scene alone; None where that says nothing."""
        return None

    def success(self, progress: ProgressT, time: float) -> bool:
        """Whether the task is done at ``time`` (s) and has stayed so for ``stay_seconds``."""
        since = progress.done_since
        return since is not None and time - since > self.stay_seconds - 1e-6

    def stage(self, progress: ProgressT) -> int:
        """Furthest stage so far, an index into ``stages``."""
        return progress.best_stage


def updated_since(done: bool, since: float | None, time: float) -> float | None:
    """``Progress.done_since`` at ``time`` (s), given whether the task is done now."""
    if not done:
        return None
    return time if since is None else since


def closest(places: NDArray[np.float64]) -> float:
    """Smallest distance in m between any two places (P, 2), P at least 2."""
    pairs = itertools.combinations(places, 2)
    return min(math.dist(first, second) for first, second in pairs)


def standing_poses(
    props: tuple[Prop, ...], places: NDArray[np.float64], yaws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Poses (P, 7) of props that stand on the table.

    Args:
        props: the P props.
        places: (P, 2) x and y, m.
        yaws: (P,) turns about the vertical, rad.
    """
    heights = np.array([[prop.half_height] for prop in props])
    zeros = np.zeros((len(props), 2))
    cosines, sines = np.cos(yaws / 2)[:, None], np.sin(yaws / 2)[:, None]
    return np.concatenate([places, heights, cosines, zeros, sines], axis=1)
