# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How far a policy's chunks are from those of the full-precision one, on the latter's own way.

The full-precision policy drives; at each of its observations the judged policy computes a chunk as
well. So both see the same scenes, also where the judged policy alone would have failed long ago.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import RunningEpisode, check_execute, check_platform

if TYPE_CHECKING:
    from hbvla_ros.policy import Platform, Policy
    from hbvla_ros.sim.simulation import AlohaSimulation

JOINTS = tuple(
    f'{side} {name}'
    for side in ('left', 'right')
    for name in ('waist', 'shoulder', 'elbow', 'forearm roll', 'wrist angle', 'wrist rotate',
                 'gripper')
)  # fmt: skip


@dataclass(frozen=True)
class ErrorSums:
    """Sums over observations, in normalised actions, from which every error follows.

    Attributes:
        frames: int64 (S,), observations in each stage.
        squared: float64 (S, K, A), squared differences of stage, row of the chunk and joint.
        wanted: float64 (K, A), actions of the full-precision policy.
        wanted_squared: float64 (K, A), their squares.
    """

    frames: NDArray[np.int64]
    squared: NDArray[np.float64]
    wanted: NDArray[np.float64]
    wanted_squared: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        stages: Sequence[int],
        stage_count: int,
        found: NDArray[np.float64],
        wanted: NDArray[np.float64],
    ) -> ErrorSums:
        """Sum over F observations.

        Args:
            stages: stage of each.
            stage_count: number of stages S of the task.
            found: (F, K, A) actions of the judged policy.
            wanted: (F, K, A) actions of the full-precision policy.
        """
        squared = np.zeros((stage_count, *wanted.shape[1:]))
        np.add.at(squared, list(stages), (found - wanted) ** 2)
        frames = np.bincount(stages, minlength=stage_count)
        return cls(frames, squared, wanted.sum(axis=0), (wanted**2).sum(axis=0))

    def __add__(self, other: ErrorSums) -> ErrorSums:
        """The sums over the observations of both; of tasks with equally many stages."""
        return ErrorSums(*(mine + its for mine, its in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[NDArray[Any], ...]:
        return self.frames, self.squared, self.wanted, self.wanted_squared

    def without_stages(self) -> ErrorSums:
        """All observations as of one stage, so that tasks can be added up."""
        return ErrorSums(
            self.frames.sum(keepdims=True),
            self.squared.sum(axis=0, keepdims=True),
            self.wanted,
            self.wanted_squared,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        names = ('frames', 'squared', 'wanted', 'wanted_squared')
        return {name: values.tolist() for name, values in zip(names, self._all(), strict=True)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ErrorSums:
        """From :meth:`to_json`.

        Raises:
            KeyError: a part is missing.
        """
        return cls(
            np.array(content['frames'], dtype=np.int64),
            np.array(content['squared'], dtype=np.float64),
            np.array(content['wanted'], dtype=np.float64),
            np.array(content['wanted_squared'], dtype=np.float64),
        )

    def report(self, stages: Sequence[str] = ()) -> dict[str, Any]:
        """Relative errors; None where the full-precision policy never varies, or was never there.

        Args:
            stages: their names; without them the errors by stage are left out.

        Returns:
            ``frames``; ``rms`` in normalised actions; ``relative_rms``, over the root mean square
            of the wanted actions about their mean over observations; ``by_row`` and ``by_stage``
            over the same; ``by_joint``, each over the spread of that joint.
        """
        count, rows, joints = int(self.frames.sum()), *self.wanted.shape
        variance = self.wanted_squared / count - (self.wanted / count) ** 2
        spread = float(np.sqrt(max(variance.mean(), 0.0)))
        total = self.squared.sum(axis=0)
        by_joint = np.sqrt(total.sum(axis=0) / (count * rows))
        joint_spread = np.sqrt(np.maximum(variance.mean(axis=0), 0.0))
        rms = float(np.sqrt(total.mean() / count))
        result: dict[str, Any] = {
            'frames': count,
            'rms': rms,
            'relative_rms': _ratio(rms, spread),
            'by_row': [_ratio(value, spread) for value in np.sqrt(total.mean(axis=1) / count)],
            'by_joint': {
                name: _ratio(value, its)
                for name, value, its in zip(JOINTS, by_joint, joint_spread, strict=True)
            },
        }
        if stages:
            per_stage = self.squared.sum(axis=(1, 2)) / np.maximum(self.frames, 1) / (rows * joints)
            result['by_stage'] = {
                name: {'frames': int(seen), 'relative_rms': _ratio(value, spread) if seen else None}
                for name, seen, value in zip(stages, self.frames, np.sqrt(per_stage), strict=True)
            }
        return result


def _ratio(value: float, spread: float) -> float | None:
    # A spread below single precision is rounding, not motion.
    return float(value / spread) if spread > 1e-6 else None


def check_comparable(platform: Platform, reference: Platform, names: tuple[str, str]) -> None:
    """Refuse policies whose chunks cannot be compared row by row.

    Args:
        platform: of the judged policy.
        reference: of the policy that drives.
        names: what the two are called in the error.

    Raises:
        HbvlaError: other cameras, chunk length, rate or joints.
    """
    for name in ('cameras', 'chunk', 'step', 'action_dim'):
        mine, its = getattr(platform, name), getattr(reference, name)
        if mine != its:
            raise HbvlaError(
                f'reference {names[1]}: {name} {its}, that of {names[0]} is {mine}; name the '
                'full-precision checkpoint it was quantized from'
            )


def compare_episode(
    policy: Policy,
    reference: Policy,
    simulation: AlohaSimulation,
    seed: int,
    execute: int,
    max_steps: int,
    task: str,
) -> ErrorSums:
    """Drive one episode with the reference and compare the chunks of both at each observation.

    Args:
        policy: is judged.
        reference: drives; its statistics normalise the actions of both.
        simulation: is reset.
        seed: decides the episode.
        execute: rows of each chunk that are commanded.
        max_steps: control steps after which the episode ends.
        task: name of the task.

    Raises:
        HbvlaError: policies that cannot be compared, or not for the simulated robot.
    """
    check_platform(reference.platform)
    names = (policy.checkpoint, reference.checkpoint)
    check_comparable(policy.platform, reference.platform, names)
    check_execute(execute, reference.platform)
    for one in (policy, reference):
        one.generator.manual_seed(seed)
    episode = RunningEpisode(simulation, seed, task)
    stages, found, wanted, over = [], [], [], False
    while not over:
        observation = episode.observe(reference.platform.cameras)
        stages.append(simulation.stage())
        wanted.append(reference.act(observation).actions)
        found.append(policy.act(observation).actions)
        over = episode.execute(wanted[-1][:execute], max_steps)
    scale = _half_ranges(reference)
    return ErrorSums.of(
        stages, len(simulation.task.stages), np.stack(found) / scale, np.stack(wanted) / scale
    )


def _half_ranges(policy: Policy) -> NDArray[np.float64]:
    """(A,) what one unit of a normalised action is in the robot's units, at least a little."""
    ones = np.ones(policy.platform.action_dim)
    return np.maximum(policy.normaliser.actions(ones) - policy.normaliser.actions(0 * ones), 1e-6)
