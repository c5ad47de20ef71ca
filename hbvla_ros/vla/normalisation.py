# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Statistics of the training data and what is computed with them (spec section 7)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.platform import Platform

Values = NDArray[np.float64]
_BOUNDS = {'bounds': ('min', 'max'), 'bounds_q99': ('q01', 'q99')}
_EPSILON = 1e-8


def read_statistics(
    folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All statistics of a checkpoint: dataset_statistics.json, else config.json's norm_stats.

    Raises:
        HbvlaError: neither is there, or the file is not readable.
    """
    path = Path(folder) / 'dataset_statistics.json'
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        values = (config or {}).get('norm_stats')
        if not values:
            raise HbvlaError(f'{path}: missing; copy it from the trained checkpoint') from None
    except (OSError, ValueError) as error:
        raise HbvlaError(f'{path}: not readable ({error})') from None
    if not isinstance(values, dict) or not values:
        raise HbvlaError(f'{path}: must hold one JSON object with at least one dataset')
    return values


def select_statistics(statistics: Mapping[str, Any], key: str | None) -> Mapping[str, Any]:
    """The statistics of one dataset: by key, by key + ``_no_noops``, or the only one there is.

    Raises:
        HbvlaError: unknown key, or none given where there are several; lists the keys.
    """
    keys = ', '.join(sorted(statistics))
    if key is None:
        if len(statistics) != 1:
            raise HbvlaError(
                f'dataset_statistics.json has several keys; name one in statistics_key: {keys}'
            )
        return next(iter(statistics.values()))
    for candidate in (key, f'{key}_no_noops'):
        if candidate in statistics:
            return statistics[candidate]
    raise HbvlaError(f'unknown statistics key {key!r}; dataset_statistics.json has: {keys}')


class _Range:
    """Bounds of one kind of value; entries outside the mask pass unchanged."""

    def __init__(self, values: Mapping[str, Any], normalisation: str, dim: int, what: str) -> None:
        low, high = _BOUNDS[normalisation]
        for key in (low, high):
            if key not in values:
                raise HbvlaError(f'dataset_statistics.json: {what} has no {key!r}')
        self.low = np.asarray(values[low], dtype=np.float64)
        self.high = np.asarray(values[high], dtype=np.float64)
        self.mask = np.asarray(values.get('mask', np.ones(dim, dtype=bool)), dtype=bool)
        for array in (self.low, self.high, self.mask):
            if array.shape != (dim,):
                raise HbvlaError(
                    f'dataset_statistics.json: {what} has {array.size} values, the platform {dim}'
                )

    def normalise(self, values: Values) -> Values:
        scaled = 2 * (values - self.low) / (self.high - self.low + _EPSILON) - 1
        return np.where(self.mask, scaled, values)

    def restore(self, values: Values) -> Values:
        scaled = 0.5 * (values + 1) * (self.high - self.low + _EPSILON) + self.low
        return np.where(self.mask, scaled, values)


class Normaliser:
    """Proprioception in, actions out, for one platform and one dataset's statistics."""

    def __init__(self, statistics: Mapping[str, Any], platform: Platform) -> None:
        chosen = select_statistics(statistics, platform.statistics_key)
        for part in ['action'] + ['proprio'] * bool(platform.proprio_dim):
            if not isinstance(chosen.get(part), dict):
                raise HbvlaError(f'dataset_statistics.json: the dataset has no {part!r} part')
        self.platform = platform
        self._action = _Range(
            chosen['action'], platform.normalisation, platform.action_dim, 'action'
        )
        self._proprio: _Range | None = None
        if platform.proprio_dim:
            self._proprio = _Range(
                chosen['proprio'], platform.normalisation, platform.proprio_dim, 'proprio'
            )

    def proprio(self, values: ArrayLike) -> Values:
        """Raw proprioception (..., P) -> float64 (..., P), always clipped to -1..1."""
        if self._proprio is None:
            raise HbvlaError(f'platform {self.platform.name!r} takes no proprioception')
        return np.clip(self._proprio.normalise(np.asarray(values, dtype=np.float64)), -1, 1)

    def actions(self, values: ArrayLike) -> Values:
        """Network output (..., A) -> actions in the statistics' units, float64, not clipped."""
        return self._action.restore(np.asarray(values, dtype=np.float64))

    def normalise_actions(self, values: ArrayLike) -> Values:
        """Training labels: raw actions (..., A) -> float64 in -1..1; constant dimensions are 0."""
        action = self._action
        scaled = np.asarray(values, dtype=np.float64)
        scaled = np.where(action.mask, np.clip(action.normalise(scaled), -1, 1), scaled)
        return np.where(action.mask & (action.low == action.high), 0.0, scaled)

    def robot_actions(self, values: ArrayLike) -> Values:
        """Network output (..., A) -> what the robot takes: with the platform's gripper rule."""
        actions = self.actions(values)
        return libero_gripper(actions) if self.platform.gripper == 'libero' else actions


def libero_gripper(actions: Values) -> Values:
    """Last value 0 (closed) .. 1 (open) -> +1 (close) or -1 (open), as LIBERO's arm takes it."""
    result = actions.copy()
    result[..., -1] = -np.sign(2 * result[..., -1] - 1)
    return result
