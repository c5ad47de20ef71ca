# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What every task and its expert must keep to; see hbvla_ros/sim/tasks/base.py."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import scene
from hbvla_ros.sim.arms import ARMS
from hbvla_ros.sim.demonstrations import LIMIT_SHARE
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.registry import DEFAULT_TASK, find_task, task_names

SEED = 2_000_200
each_task = pytest.mark.parametrize('name', task_names())


@pytest.fixture(scope='module')
def simulation():
    simulation = AlohaSimulation()
    yield simulation
    simulation.close()


def follow(simulation, steps):
    """Let the expert act; returns the commands."""
    expert, commands = make_expert(simulation), []
    for _ in range(steps):
        commands.append(expert.command())
        simulation.command(commands[-1])
        simulation.step()
    return commands


def test_registry_knows_its_tasks():
    assert task_names()[0] == DEFAULT_TASK == 'pick_place'
    assert len(set(task_names())) == len(task_names())
    assert [find_task(name).name for name in task_names()] == list(task_names())
    with pytest.raises(HbvlaError, match=f"'juggle': unknown; .*{', '.join(task_names())}"):
        find_task('juggle')


def test_a_prop_means_the_same_in_every_task():
    first = {}
    for prop in (prop for name in task_names() for prop in find_task(name).props):
        known = first.setdefault(prop.name, prop)
        assert (prop.phrase, prop.movable) == (known.phrase, known.movable)
        for part, other in zip(prop.parts, known.parts, strict=True):
            # Sizes may differ by what a task needs, not by what an instruction tells apart.
            assert (part.shape, part.colour) == (other.shape, other.colour)
            np.testing.assert_allclose(part.size, other.size, atol=0.005)


def test_sentences_belong_to_one_task_each():
    sentences = [text for name in task_names() for text in find_task(name).instructions]
    assert len(set(sentences)) == len(sentences)


@each_task
def test_stages_and_limits(name):
    task = find_task(name)
    assert task.stages[0] == 'nothing' and len(set(task.stages)) == len(task.stages) >= 3
    assert 5 <= task.max_seconds <= 60 and 0.1 < task.stay_seconds < 1


@each_task
def test_layouts_follow_from_the_generator_alone(name):
    task, asked = find_task(name), set()
    for seed in range(80):
        one, two = (task.sample(np.random.default_rng(seed)) for _ in range(2))
        assert one.instruction == two.instruction and np.array_equal(one.poses, two.poses)
        assert one.poses.shape == (len(task.props), 7) and one.poses.dtype == np.float64
        np.testing.assert_allclose(np.linalg.norm(one.poses[:, 3:], axis=1), 1.0)
        asked.add(one.instruction)
    assert asked == set(task.instructions)


@each_task
def test_scene_holds_the_props_and_they_rest(simulation, name):
    simulation.reset(SEED, name)
    task = simulation.task
    movable = [prop.name for prop in task.props if prop.movable]
    joints = [simulation.model.joint(i).name for i in range(16, simulation.model.njnt)]
    assert joints == [f'{prop}_joint' for prop in movable]
    before = simulation.view.positions(movable)
    simulation.advance(1.0)
    assert np.abs(simulation.view.positions(movable) - before).max() < 3e-3
    assert simulation.stage() == 0 and not simulation.success()


@each_task
@pytest.mark.parametrize('seed', seed_range('validation', 2, offset=300))
def test_expert_succeeds_in_time_and_comes_to_rest(simulation, name, seed):
    simulation.reset(seed, name)
    task, expert = simulation.task, make_expert(simulation)
    while not simulation.success() and simulation.time < task.max_seconds:
        simulation.command(expert.command())
        simulation.step()
    assert simulation.success() and simulation.stage() == len(task.stages) - 1
    assert simulation.time < LIMIT_SHARE * task.max_seconds
    follow(simulation, 75)
    assert simulation.success()
    assert np.abs(simulation.joint_velocities()).max() < 0.02
    for arm, name in enumerate(ARMS):
        part = slice(7 * arm, 7 * arm + 7)
        held = [p.name for p in task.props if simulation.view.touched_by(p.name, arm)]
        # At home with an open gripper, unless the task ends with something in the hand.
        if not held:
            measured = simulation.joint_positions()[part]
            np.testing.assert_allclose(measured, START_ACTION[part], atol=0.05, err_msg=name)
            np.testing.assert_allclose(expert.command()[part], START_ACTION[part], atol=0.05)


@each_task
@pytest.mark.parametrize('steps', [10, 40, 80])
def test_expert_target_and_goal_have_no_memory(simulation, name, steps):
    simulation.reset(SEED + 1, name)
    expert = make_expert(simulation)
    follow(simulation, steps)
    state, command = simulation.save_state(), expert.command()
    target = simulation.task.target(simulation.view, simulation.layout)
    goal = simulation.task.goal(simulation.view, simulation.layout)
    follow(simulation, 25)
    simulation.reset(SEED, DEFAULT_TASK)
    simulation.restore_state(state)
    assert simulation.task.target(simulation.view, simulation.layout) == target
    np.testing.assert_array_equal(
        np.asarray(simulation.task.goal(simulation.view, simulation.layout), float),
        np.asarray(goal, float),
    )
    assert np.array_equal(expert.command(), command)
    assert np.array_equal(make_expert(simulation).command(), command)


@each_task
def test_restored_episode_goes_on_to_the_last_bit(simulation, name):
    simulation.reset(SEED + 2, name)
    follow(simulation, 45)
    state = simulation.save_state()
    ends = []
    for _ in range(2):
        simulation.restore_state(state)
        follow(simulation, 30)
        ends.append((simulation.save_state().physics, simulation.stage()))
        simulation.reset(SEED + 3)
    assert np.array_equal(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]


def test_what_ran_before_does_not_matter(simulation):
    for name in task_names():
        simulation.reset(SEED, name)
        commands = follow(simulation, 20)
        fresh = AlohaSimulation(task=name)
        fresh.reset(SEED)
        assert np.array_equal(follow(fresh, 20), commands)
        assert np.array_equal(fresh.data.qpos, simulation.data.qpos)


def test_pictures_show_the_present_task(simulation):
    for name in (task_names()[-1], DEFAULT_TASK, task_names()[-1]):
        simulation.reset(SEED, name)
        fresh = AlohaSimulation(task=name)
        fresh.reset(SEED)
        for camera, image in simulation.render((48, 48), scene.CAMERAS[:1]).items():
            assert np.array_equal(image, fresh.render((48, 48), (camera,))[camera])
        fresh.close()
