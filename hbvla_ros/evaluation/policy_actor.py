# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A checkpoint that drives the simulated robot while demonstrations are recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.data import Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import CAMERA_SIZE, EXECUTE, check_execute, check_platform

if TYPE_CHECKING:
    from hbvla_ros.policy import Policy
    from hbvla_ros.sim.policy_demonstrations import Render
    from hbvla_ros.sim.simulation import AlohaSimulation


class PolicyActor:
    """Drives as in :func:`hbvla_ros.evaluation.closed_loop.run_episode`.

    Args:
        policy: computes the chunks, with one thread.
    """

    def __init__(self, policy: Policy) -> None:
        """Nothing is computed yet."""
        self._policy = policy

    def start(self, seed: int) -> None:
        """Where the network draws noise, the seed decides which."""
        self._policy.generator.manual_seed(seed)

    def chunk(self, simulation: AlohaSimulation, render: Render) -> NDArray[np.float64]:
        """The first rows of a chunk for what the robot sees and feels now: (5, 14)."""
        from hbvla_ros.policy import compute_threads

        observation = Observation(
            images=render((CAMERA_SIZE, CAMERA_SIZE), self._policy.platform.cameras),
            proprioception=simulation.joint_positions(),
            instruction=simulation.instruction,
            stamp=simulation.time,
        )
        # The number of threads is part of how a sum is rounded, so of the episode.
        with compute_threads(1):
            return self._policy.act(observation).actions[:EXECUTE]


@dataclass(frozen=True)
class PolicyActors:
    """Loads the policy of a checkpoint in each worker; :meth:`of` makes one.

    Attributes:
        folder: the checkpoint, full precision or deployed.
        identity: of the folder, as ``Policy.checkpoint`` has it.
    """

    folder: str
    identity: str

    @classmethod
    def of(cls, folder: Path, control_rate: float) -> PolicyActors:
        """Load the checkpoint once, so that what is wrong with it shows before workers start.

        Args:
            folder: the checkpoint.
            control_rate: of the simulation, Hz.

        Raises:
            HbvlaError: a damaged folder, or a policy for another robot or control rate.
        """
        policy = _load(folder)
        platform = policy.platform
        check_platform(platform)
        check_execute(EXECUTE, platform)
        if not math.isclose(platform.step * control_rate, 1.0, rel_tol=1e-6):
            raise HbvlaError(
                f'platform {platform.name}: rows {platform.step:g} s apart, those of '
                f'demonstrations are {1 / control_rate:g} s apart; use a policy of that step'
            )
        return cls(str(folder), policy.checkpoint)

    def __call__(self) -> PolicyActor:
        """The actor of this process.

        Raises:
            HbvlaError: the folder is no longer what it was.
        """
        policy = _load(Path(self.folder))
        if policy.checkpoint != self.identity:
            raise HbvlaError(f'{self.folder}: has changed since the start; run it again')
        return PolicyActor(policy)


def _load(folder: Path) -> Policy:
    """In float32 on the processor, whatever else there is: it rounds the same everywhere."""
    from hbvla_ros.policy import Policy, compute_threads, dtype_for

    with compute_threads(1):
        return Policy.load(folder, dtype=dtype_for('cpu'), device='cpu')
