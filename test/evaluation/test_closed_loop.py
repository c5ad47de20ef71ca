# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Real simulator and a real network with random weights: the plumbing, not the skill."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import evaluate, run_episode
from hbvla_ros.evaluation.episode import evaluation_seeds
from hbvla_ros.policy import Policy
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.seeds import RANGES
from hbvla_ros.sim.simulation import AlohaSimulation

SIMULATED = {
    'name': 'aloha_sim',
    'robot': 'aloha_sim',
    'cameras': ('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
    'chunk': 10,
}


@pytest.fixture
def random_policy(make_tiny_checkpoint) -> Policy:
    return Policy.load(make_tiny_checkpoint(platform=SIMULATED))


def test_an_episode_keeps_what_was_commanded_and_measured(random_policy):
    simulation = AlohaSimulation(64)
    result = run_episode(random_policy, simulation, 3_000_007, execute=5, max_steps=12)
    simulation.close()
    assert not result.success and result.time_to_success is None
    assert result.instruction == simulation.instruction
    # Chunks of five rows until twelve steps are full.
    assert result.chunks == len(result.latencies) == 3
    assert result.duration == pytest.approx(12 / 25)
    trace = result.trace
    assert trace.commands.shape == trace.positions.shape == (12, 14)
    assert trace.times == pytest.approx(np.arange(12) / 25)
    # The arms follow: what is measured moves towards what was commanded.
    before = np.abs(trace.commands[0] - trace.positions[0])
    after = np.abs(trace.commands[0] - trace.positions[1])
    assert after[:6].sum() < before[:6].sum()


def test_same_seeds_and_settings_give_the_same_result(random_policy):
    seeds = evaluation_seeds(3, 11)
    first, second = (evaluate(random_policy, seeds, parallel=2, max_steps=10) for _ in range(2))
    assert [one.seed for one in first.episodes] == list(seeds)
    for one, other in zip(first.episodes, second.episodes, strict=True):
        assert np.array_equal(one.trace.commands, other.trace.commands)
        assert np.array_equal(one.trace.positions, other.trace.positions)
    assert not np.array_equal(first.episodes[0].trace.commands, first.episodes[1].trace.commands)


class _ExpertPolicy:
    """Chunks of the scripted expert, which sees the simulation itself: success must be counted."""

    def __init__(self, policy: Policy, simulation: AlohaSimulation) -> None:
        self.platform, self.checkpoint = policy.platform, 'expert'
        self._policy, self._simulation = policy, simulation
        self.generator = policy.generator

    def act_batch(self, observations):
        (chunk,) = self._policy.act_batch(observations)
        chunk.actions[0] = PickPlaceExpert(self._simulation).command()
        return [chunk]


def test_success_ends_the_episode_and_is_counted(random_policy):
    simulation = AlohaSimulation(32)
    policy = _ExpertPolicy(random_policy, simulation)
    result = run_episode(policy, simulation, 3_000_004, execute=1)  # type: ignore[arg-type]
    simulation.close()
    assert result.success and result.row()['stage_name'] == 'in the bucket'
    assert result.time_to_success == pytest.approx(len(result.trace) / 25)
    assert len(result.trace) < 400


def test_the_summary_counts_and_is_plain_json(random_policy):
    seen = []
    evaluation = evaluate(random_policy, evaluation_seeds(2, 0), max_steps=5, progress=seen.append)
    report = evaluation.to_json()
    assert (report['episodes'], report['successes'], report['success_rate']) == (2, 0, 0.0)
    assert report['interval'] == pytest.approx([0.0, 0.65762], abs=1e-5)
    assert report['seeds'] == [3_000_000, 3_000_001] == sorted(one.seed for one in seen)
    assert report['checkpoint'] == random_policy.checkpoint
    assert len(report['rows']) == 2 and report['rows'][0]['chunks'] == 1


def test_seeds_of_training_are_refused():
    assert evaluation_seeds(2, 5) == range(3_000_005, 3_000_007)
    assert evaluation_seeds(2, 3_000_005) == range(3_000_005, 3_000_007)
    with pytest.raises(HbvlaError, match='seed 1000000: belongs to demos, not evaluation'):
        evaluation_seeds(4, RANGES['demos'].start)
    with pytest.raises(HbvlaError, match='seed 3100000: belongs to other'):
        evaluation_seeds(2, 3_099_999)
    with pytest.raises(HbvlaError, match='do not fit'):
        evaluation_seeds(2, 99_999)


def test_seeds_that_a_checkpoint_was_trained_on_are_refused(tmp_path):
    assert evaluation_seeds(2, 0, tmp_path) == range(3_000_000, 3_000_002)
    summary = {'training_seeds': [1_000_000, 1_000_400], 'validation_seeds': []}
    (tmp_path / 'training.json').write_text(json.dumps(summary))
    assert evaluation_seeds(2, 0, tmp_path) == range(3_000_000, 3_000_002)
    summary['validation_seeds'] = [3_000_001, 3_000_009]
    (tmp_path / 'training.json').write_text(json.dumps(summary))
    with pytest.raises(HbvlaError, match='seed 3000001: in both validation seeds of .* this eval'):
        evaluation_seeds(2, 0, tmp_path)
    (tmp_path / 'training.json').write_text('{')
    with pytest.raises(HbvlaError, match='training.json: not readable'):
        evaluation_seeds(2, 0, tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'robot': 'aloha'}, "trained for robot 'aloha', the simulated one is 'aloha_sim'"),
        ({'cameras': ('cam_high', 'cam_low')}, "camera 'cam_low' is not on the simulated robot"),
    ],
)
def test_a_policy_for_another_robot_is_refused(make_tiny_checkpoint, changes, message):
    policy = Policy.load(make_tiny_checkpoint(platform={**SIMULATED, **changes}))
    with pytest.raises(HbvlaError, match=message):
        evaluate(policy, evaluation_seeds(1, 0))


def test_settings_out_of_range_are_refused(random_policy):
    with pytest.raises(HbvlaError, match='execute 11: must be 1 to 10'):
        evaluate(random_policy, evaluation_seeds(1, 0), execute=11)
    with pytest.raises(HbvlaError, match='run at least one'):
        evaluate(random_policy, [])
    with pytest.raises(HbvlaError, match="task 'fold'"):
        evaluate(random_policy, evaluation_seeds(1, 0), task='fold')
