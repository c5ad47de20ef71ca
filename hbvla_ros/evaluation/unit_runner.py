# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Runs units of an evaluation one after the other, with policies and simulations of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hbvla_ros.evaluation.action_error import compare_episode
from hbvla_ros.evaluation.closed_loop import run_episodes, step_limit
from hbvla_ros.evaluation.plan import Candidate, Outcome, Settings, Unit

if TYPE_CHECKING:
    from hbvla_ros.policy import Policy
    from hbvla_ros.sim.simulation import AlohaSimulation

# A judged policy and its reference.
_KEPT_POLICIES = 2


class UnitRunner:
    """One worker: policies that were loaded last and simulations are kept between units.

    Args:
        settings: of the evaluation.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is loaded before it is needed."""
        self._settings = settings
        self._policies: dict[Candidate, Policy] = {}
        self._simulations: list[AlohaSimulation] = []

    def run(self, unit: Unit) -> Outcome:
        """Run one unit.

        Returns:
            Plain JSON types: ``seconds``; ``episodes`` and ``settings``, or ``errors``.

        Raises:
            HbvlaError: a damaged checkpoint, one for another robot, or no renderer.
        """
        policy, *references = self._load(*[one for one in (unit.candidate, unit.reference) if one])
        rate = 1 / policy.platform.step
        limit = step_limit(unit.task, rate, self._settings.max_seconds)
        simulations = self._simulate(len(unit.seeds), rate)
        started = time.perf_counter()
        execute = self._settings.execute
        outcome: Outcome
        if references:
            sums = compare_episode(
                policy, references[0], simulations[0], unit.seeds[0], execute, limit, unit.task
            )
            outcome = {'errors': sums.to_json()}
        else:
            found = run_episodes(policy, simulations, unit.seeds, execute, limit, unit.task)
            records = {result.seed: result.record() for result in found}
            outcome = {
                'episodes': [records[seed] for seed in unit.seeds],
                'settings': {'max_steps': limit, 'trace_rate_hz': rate, 'settle_seconds': 0.0},
            }
        return {'seconds': round(time.perf_counter() - started, 3), **outcome}

    def close(self) -> None:
        """Free the graphics contexts."""
        while self._simulations:
            self._simulations.pop().close()

    def _load(self, *candidates: Candidate) -> list[Policy]:
        """Policies of the candidates; those used last are kept."""
        from hbvla_ros.policy import Policy, dtype_for

        for candidate in candidates:
            policy = self._policies.pop(candidate, None)
            if policy is None:
                while len(self._policies) >= _KEPT_POLICIES:
                    self._policies.pop(next(iter(self._policies)))
                policy = Policy.load(
                    candidate.folder,
                    candidate.platform,
                    dtype=dtype_for(self._settings.device),
                    device=self._settings.device,
                    base=candidate.base,
                )
                policy.warmup()
            self._policies[candidate] = policy
        return [self._policies[candidate] for candidate in candidates]

    def _simulate(self, count: int, rate: float) -> list[AlohaSimulation]:
        """So many simulations at a control rate in Hz; only a change of rate needs new ones."""
        from hbvla_ros.sim.simulation import AlohaSimulation

        if self._simulations and self._simulations[0].control_rate != rate:
            self.close()
        while len(self._simulations) < count:
            self._simulations.append(AlohaSimulation(self._settings.camera_size, rate))
        return self._simulations
