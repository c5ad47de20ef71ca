# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Two objects into the bucket, in the order asked for."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.sim.demonstrations import roll_out
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.objects import OBJECTS
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.sequence import ORDERS, Sequence

SEED = 2_000_001
# m from the middle of the bucket, so that three objects lie side by side
SPOTS = ((-0.038, 0.0), (0.02, 0.035), (0.02, -0.035))


@pytest.fixture(scope='module')
def shared():
    return AlohaSimulation(task='sequence')


@pytest.fixture
def simulation(shared):
    shared.reset(SEED, joints=START_ACTION)
    return shared


def drop(simulation, number, spot):
    """Put an object to rest in the bucket and run until it counts."""
    address = int(simulation.model.joint(f'{OBJECTS[number].name}_joint').qposadr[0])
    x, y, _ = simulation.view.position('bucket')
    height = OBJECTS[number].half_height + 0.007
    simulation.data.qpos[address : address + 3] = (x + spot[0], y + spot[1], height)
    for _ in range(15):
        simulation.step()


def test_every_ordered_pair_is_asked_for():
    sentences = Sequence().instructions
    assert len(set(sentences)) == len(ORDERS) == 6
    assert 'put the red cube and then the green cylinder into the bucket' in sentences
    for seed in range(40):
        layout = Sequence().sample(np.random.default_rng(seed))
        first, second = (OBJECTS[number].phrase for number in layout.order)
        assert layout.instruction == f'put the {first} and then the {second} into the bucket'
    asked = {Sequence().sample(np.random.default_rng(seed)).order for seed in range(60)}
    assert asked == set(ORDERS)


def test_done_in_the_order_asked_for(simulation):
    first, second = simulation.layout.order
    drop(simulation, first, SPOTS[0])
    assert simulation.stage() == 3 and not simulation.success()
    drop(simulation, second, SPOTS[1])
    assert simulation.stage() == 6 and simulation.success()


def test_the_other_order_does_not_count(simulation):
    first, second = simulation.layout.order
    drop(simulation, second, SPOTS[0])
    assert simulation.stage() == 0
    drop(simulation, first, SPOTS[1])
    assert not simulation.success() and simulation.stage() < 3


def test_taking_the_second_out_again_repairs_the_order(simulation):
    first, second = simulation.layout.order
    drop(simulation, second, SPOTS[0])
    drop(simulation, first, SPOTS[1])
    drop(simulation, second, (0.2, 0.1))
    assert not simulation.success()
    drop(simulation, first, (-0.2, 0.1))
    drop(simulation, first, SPOTS[1])
    drop(simulation, second, SPOTS[0])
    assert simulation.success()


def test_the_third_object_must_stay_outside(simulation):
    first, second = simulation.layout.order
    drop(simulation, first, SPOTS[0])
    drop(simulation, second, SPOTS[1])
    drop(simulation, 3 - first - second, SPOTS[2])
    assert not simulation.success() and simulation.stage() == 6


def test_target_moves_on_and_ends(simulation):
    task, first, second = simulation.task, *simulation.layout.order
    names = []
    for number, spot in ((first, SPOTS[0]), (second, SPOTS[1])):
        names.append(task.target(simulation.view, simulation.layout))
        drop(simulation, number, spot)
    assert names == [OBJECTS[first].name, OBJECTS[second].name]
    assert task.target(simulation.view, simulation.layout) is None
    assert task.goal(simulation.view, simulation.layout) is None


@pytest.mark.parametrize('spot', [(0.03, 0.0), (-0.03, 0.01), (0.0, 0.01), (0.0, -0.01)])
def test_goal_keeps_clear_of_what_lies_there(simulation, spot):
    first, second = simulation.layout.order
    drop(simulation, first, spot)
    goal = simulation.task.goal(simulation.view, simulation.layout)
    apart = np.abs(goal - simulation.view.position(OBJECTS[first].name))[:2]
    assert apart[0] > 0.045 or apart[1] > 0.04
    assert np.abs(goal - simulation.view.position('bucket'))[:2].max() < 0.045


@pytest.mark.parametrize('seed', seed_range('validation', 6, offset=100))
def test_expert_succeeds_stage_by_stage_and_goes_home(shared, seed):
    shared.reset(seed)
    expert, seen = make_expert(shared), [0]
    for _ in range(250):
        shared.command(expert.command())
        shared.step()
        if shared.stage() != seen[-1]:
            seen.append(shared.stage())
    assert seen == [0, 1, 2, 3, 4, 5, 6] and shared.success()
    np.testing.assert_allclose(shared.joint_positions(), START_ACTION, atol=0.02)


def test_expert_takes_again_what_landed_on_top(simulation):
    first, second = simulation.layout.order
    drop(simulation, first, (0.0, 0.0))
    address = int(simulation.model.joint(f'{OBJECTS[second].name}_joint').qposadr[0])
    on_top = simulation.view.position(OBJECTS[first].name) + (0.0, 0.0, 0.047)
    simulation.data.qpos[address : address + 3] = on_top
    for _ in range(15):
        simulation.step()
    assert simulation.view.position(OBJECTS[second].name)[2] > 0.055
    expert = make_expert(simulation)
    for _ in range(250):
        simulation.command(expert.command())
        simulation.step()
    assert simulation.success()


def test_progress_is_saved_with_the_state(simulation):
    first, second = simulation.layout.order
    drop(simulation, first, SPOTS[0])
    state = simulation.save_state()
    drop(simulation, second, SPOTS[1])
    assert simulation.success()
    simulation.restore_state(state)
    assert not simulation.success() and simulation.stage() == 3


def test_restoring_another_task_brings_back_its_scene(simulation):
    state, instruction = simulation.save_state(), simulation.instruction
    simulation.reset(SEED, 'pick_place')
    simulation.restore_state(state)
    assert simulation.task.name == 'sequence' and simulation.instruction == instruction


def test_most_disturbed_episodes_still_succeed(shared):
    shared.reset(SEED)
    outcomes = []
    for seed in seed_range('validation', 10, offset=40):
        roll_out(shared, seed)
        outcomes.append(shared.success())
    assert sum(outcomes) >= 8
