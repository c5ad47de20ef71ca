# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Open-loop error of a replay: what the policy wanted against what the bag commanded.

The policy sees what the recorded run saw and changes nothing of it, so a small error says that it
would have begun as the recording did, and no more: it is a regression signal, not a success rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk
from hbvla_ros.recordings.pose_tracks import PoseTracks

Vector = NDArray[np.float64]

_DIGITS = 6


@dataclass(frozen=True)
class OpenLoopError:
    """Absolute differences, rad and for grippers ratio; NaN where the bag had nothing.

    Attributes:
        rows: (N, K, A), of every chunk, row and dimension.
    """

    rows: Vector

    @classmethod
    def of(cls, chunks: Sequence[ActionChunk], poses: PoseTracks) -> OpenLoopError | None:
        """Compare each row with the pose in force when it was due; None without a chunk.

        Args:
            chunks: of one length K, rows as poses.
            poses: what was commanded, or measured, meanwhile.
        """
        if not chunks:
            return None
        differences = []
        for chunk in chunks:
            due = chunk.start + chunk.step * np.arange(len(chunk.actions))
            differences.append(np.abs(chunk.actions - poses.at(due)))
        return cls(np.array(differences))

    @property
    def compared(self) -> int:
        """Rows of which at least one dimension could be compared."""
        return int(np.isfinite(self.rows).any(axis=2).sum())

    def by_joint(self) -> Vector:
        """Mean (A,) over chunks and rows."""
        return mean(self.rows, (0, 1))

    def by_row(self, columns: NDArray[np.bool_]) -> Vector:
        """Mean (K,) over chunks and some dimensions."""
        return mean(self.rows[:, :, columns], (0, 2))


def mean(values: Vector, axes: int | tuple[int, ...]) -> Vector:
    """Mean over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axes)
    total = np.where(known, values, 0.0).sum(axis=axes)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def joint_labels(profile: RobotProfile) -> list[str]:
    """A name for each dimension that no other has, such as ``left elbow``."""
    labels = []
    for arm in profile.arms:
        for joint in arm.names:
            plain = joint.removeprefix(f'{arm.name}_').replace('_', ' ')
            labels.append(f'{arm.name} {plain}')
    return labels


def error_report(
    error: OpenLoopError | None, executed: Vector, profile: RobotProfile, against: str
) -> dict[str, Any] | None:
    """The errors as plain JSON types; None where there was nothing to compare.

    Args:
        error: of the chunks.
        executed: (T, A) differences of what was sent while a target was followed.
        profile: names, and which are grippers.
        against: ``commands`` or ``poses``.
    """
    if error is None or not error.compared:
        return None
    gripper, labels = profile.is_gripper, joint_labels(profile)
    joints, sent = error.by_joint(), mean(executed, 0)
    by_row = [mean(error.rows[:, :, index], 0) for index in range(len(labels))]
    return {
        'against': against,
        'chunks': len(error.rows),
        'rows_compared': error.compared,
        'joints_rad': number(mean(error.rows[:, :, ~gripper], (0, 1, 2))),
        'grippers': number(mean(error.rows[:, :, gripper], (0, 1, 2))),
        'by_row_rad': numbers(error.by_row(~gripper)),
        'by_joint': {
            label: {
                'mean': number(joints[index]),
                'worst': number(_worst(error.rows[:, :, index])),
                'by_row': numbers(by_row[index]),
                'sent': number(sent[index]),
                'unit': 'ratio' if gripper[index] else 'rad',
            }
            for index, label in enumerate(labels)
        },
    }


def number(value: Any) -> float | None:
    """Rounded, None where it is not known."""
    return round(float(value), _DIGITS) if np.isfinite(value) else None


def numbers(values: Vector) -> list[float | None]:
    """As :func:`number`, each."""
    return [number(value) for value in values]


def _worst(values: Vector) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else float('nan')
