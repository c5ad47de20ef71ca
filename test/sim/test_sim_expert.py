# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from hbvla_ros.sim import kinematics
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.pick_place import PickPlace


@pytest.fixture(scope='module')
def simulation():
    return AlohaSimulation()


def target_name(simulation):
    return simulation.task.target(simulation.view, simulation.layout)


def run(simulation, expert, limit=200):
    """Steps until success; None when the limit comes first."""
    for step in range(limit):
        simulation.command(expert.command())
        simulation.step()
        if simulation.success():
            return step
    return None


@pytest.mark.parametrize('seed', seed_range('validation', 12))
def test_expert_succeeds(simulation, seed):
    simulation.reset(seed)
    assert run(simulation, PickPlaceExpert(simulation)) is not None


def test_expert_rests_at_home_after_success(simulation):
    simulation.reset(2_000_003)
    expert = PickPlaceExpert(simulation)
    run(simulation, expert)
    for _ in range(60):
        simulation.command(expert.command())
        simulation.step()
    np.testing.assert_allclose(simulation.joint_positions(), START_ACTION, atol=0.02)
    np.testing.assert_allclose(expert.command(), START_ACTION, atol=0.02)
    assert simulation.success()


def test_expert_recovers_from_a_dropped_object(simulation):
    simulation.reset(2_000_004)
    expert = PickPlaceExpert(simulation)
    for _ in range(200):
        simulation.command(expert.command())
        simulation.step()
        if simulation.stage() >= 2:
            break
    for _ in range(10):
        command = expert.command()
        command[[6, 13]] = 1.0
        simulation.command(command)
        simulation.step()
    assert simulation.view.position(target_name(simulation))[2] < 0.03
    assert run(simulation, expert) is not None


def test_expert_starts_from_a_low_closed_gripper(simulation):
    simulation.reset(2_000_005)
    pose = START_ACTION.copy()
    arm = 0 if simulation.view.position(target_name(simulation))[0] < 0 else 1
    pose[7 * arm : 7 * arm + 6] = kinematics.inverse(0.40, 0.14, 0.05, math.pi / 2)
    pose[7 * arm + 6] = 0.0
    simulation.reset(2_000_005, joints=pose)
    assert run(simulation, PickPlaceExpert(simulation)) is not None


def test_tool_speed_is_bounded(simulation):
    simulation.reset(2_000_006)
    expert = PickPlaceExpert(simulation)
    fastest = 0.0
    for _ in range(90):
        before = simulation.tip_positions()
        simulation.command(expert.command())
        simulation.step()
        moved = np.linalg.norm(simulation.tip_positions() - before, axis=1).max()
        fastest = max(fastest, moved * simulation.control_rate)
    assert 0.15 < fastest < 0.6


def test_layouts_are_as_specified():
    for seed in range(200):
        poses = PickPlace().sample(np.random.default_rng(seed)).poses
        bucket, places = poses[0, :2], poses[1:, :2]
        assert ((np.abs(places[:, 0]) >= 0.13) & (np.abs(places[:, 0]) <= 0.26)).all()
        assert ((places[:, 1] >= 0.38) & (places[:, 1] <= 0.62)).all()
        apart = [math.dist(places[i], places[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert min(apart) >= 0.10
        assert abs(bucket[0]) <= 0.03 and 0.46 <= bucket[1] <= 0.54


def test_instructions_name_the_target():
    layouts = [PickPlace().sample(np.random.default_rng(seed)) for seed in range(30)]
    assert {(layout.target, layout.instruction) for layout in layouts} == {
        (0, 'put the red cube into the bucket'),
        (1, 'put the green cylinder into the bucket'),
        (2, 'put the blue block into the bucket'),
    }
