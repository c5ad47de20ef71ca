# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.objects import OBJECTS
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation

SEED = 3_000_001
NAMES = [prop.name for prop in OBJECTS]


@pytest.fixture
def simulation():
    simulation = AlohaSimulation()
    simulation.reset(SEED)
    return simulation


def roll(simulation, commands):
    """Run commands; returns the joint and object state after each."""
    states = []
    for command in commands:
        simulation.command(command)
        simulation.step()
        states.append(simulation.data.qpos.copy())
    return np.array(states)


def expert_commands(simulation, count):
    expert = PickPlaceExpert(simulation)
    commands = []
    for _ in range(count):
        commands.append(expert.command())
        simulation.command(commands[-1])
        simulation.step()
    return commands


def place(simulation, number, position):
    """Put an object somewhere, at rest."""
    address = int(simulation.model.joint(f'{OBJECTS[number].name}_joint').qposadr[0])
    simulation.data.qpos[address : address + 3] = position


def test_same_seed_and_commands_give_the_same_states(simulation):
    commands = expert_commands(simulation, 50)
    runs = []
    for one in (simulation, AlohaSimulation()):
        one.reset(SEED)
        runs.append(roll(one, commands))
    assert np.array_equal(*runs)


def test_seeds_differ(simulation):
    first = simulation.view.positions(NAMES)
    simulation.reset(SEED + 1)
    assert np.abs(simulation.view.positions(NAMES) - first).max() > 0.01


def test_restore_then_replay_is_exact_in_the_middle_of_a_grasp(simulation):
    expert_commands(simulation, 28)
    state = simulation.save_state()
    commands = expert_commands(simulation, 30)
    simulation.restore_state(state)
    first = roll(simulation, commands)
    simulation.restore_state(state)
    assert np.array_equal(first, roll(simulation, commands))


def test_expert_answers_the_same_after_a_restore(simulation):
    expert = PickPlaceExpert(simulation)
    expert_commands(simulation, 20)
    before = expert.command()
    state = simulation.save_state()
    expert_commands(simulation, 10)
    simulation.restore_state(state)
    assert np.array_equal(expert.command(), before)


def test_saved_state_carries_the_episode(simulation):
    state = simulation.save_state()
    instruction, bucket = simulation.instruction, simulation.view.position('bucket')
    simulation.reset(SEED + 5)
    simulation.restore_state(state)
    assert simulation.instruction == instruction
    assert np.array_equal(simulation.view.position('bucket'), bucket)


def test_arms_follow_commands(simulation):
    goal = START_ACTION + np.array([0.3, 0.2, -0.2, 0.2, 0.3, -0.4, -0.7] * 2)
    simulation.command(goal)
    simulation.advance(1.5)
    np.testing.assert_allclose(simulation.joint_positions(), goal, atol=0.01)
    assert np.abs(simulation.joint_velocities()).max() < 0.01


@pytest.mark.parametrize(
    'value, slide', [(0.0, 0.01844), (1.0, 0.058), (0.5, 0.03822), (7.0, 0.058)]
)
def test_gripper_maps_to_mirrored_fingers(simulation, value, slide):
    command = START_ACTION.copy()
    command[[6, 13]] = value
    simulation.command(command)
    np.testing.assert_allclose(simulation.data.ctrl[[6, 14]], slide)
    np.testing.assert_allclose(simulation.data.ctrl[[7, 15]], -slide)
    simulation.advance(1.0)
    measured = simulation.joint_positions()[[6, 13]]
    np.testing.assert_allclose(measured, min(value, 1.0), atol=0.01)


def test_start_pose_varies_around_home(simulation):
    starts = []
    for seed in range(20):
        simulation.reset(seed)
        starts.append(simulation.joint_positions() - START_ACTION)
    joints = np.delete(np.array(starts), (6, 13), axis=1)
    assert 0.08 < np.abs(joints).max() <= 0.1 + 1e-9


def test_control_period(simulation):
    simulation.step()
    assert simulation.time == pytest.approx(0.04)
    simulation.advance(0.1)
    assert simulation.time == pytest.approx(0.14)


def test_success_needs_the_named_object_alone_and_for_a_while(simulation):
    inside = simulation.view.position('bucket') + (0.0, 0.0, 0.03)
    place(simulation, simulation.layout.target, inside)
    simulation.step()
    assert not simulation.success() and simulation.stage() == 4
    simulation.advance(0.2)
    simulation.advance(0.2)
    assert simulation.success()
    place(simulation, (simulation.layout.target + 1) % 3, inside + (0.0, 0.035, 0.0))
    simulation.advance(0.2)
    assert not simulation.success()


def test_another_object_in_the_bucket_is_no_success(simulation):
    other = (simulation.layout.target + 1) % 3
    place(simulation, other, simulation.view.position('bucket') + (0.0, 0.0, 0.03))
    for _ in range(20):
        simulation.step()
    assert not simulation.success() and simulation.stage() == 0


def test_stages_rise_in_order_and_the_best_is_kept(simulation):
    expert = PickPlaceExpert(simulation)
    seen = [simulation.stage()]
    for _ in range(110):
        simulation.command(expert.command())
        simulation.step()
        if simulation.stage() != seen[-1]:
            seen.append(simulation.stage())
    assert seen == [0, 1, 2, 3, 4] and simulation.success()


@pytest.mark.parametrize(
    'action, message',
    [
        (np.zeros(13), 'shape'),
        (np.zeros((1, 14)), 'shape'),
        (np.full(14, np.nan), 'finite'),
        (np.full(14, np.inf), 'finite'),
    ],
)
def test_bad_commands_are_refused(simulation, action, message):
    with pytest.raises(HbvlaError, match=message):
        simulation.command(action)


def test_bad_settings_are_refused(simulation):
    with pytest.raises(HbvlaError, match='control_rate 30'):
        AlohaSimulation(control_rate=30.0)
    with pytest.raises(HbvlaError, match='camera_size 0'):
        AlohaSimulation(camera_size=0)
    with pytest.raises(HbvlaError, match="task 'juggle': unknown; the tasks are pick_place, "):
        simulation.reset(1, task_name='juggle')
    with pytest.raises(HbvlaError, match='seed -1'):
        simulation.reset(-1)
