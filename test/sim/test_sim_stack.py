# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Boxes stacked in the order asked for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hbvla_ros.sim import perturbation
from hbvla_ros.sim.experts.motion import solve
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.stack import BOXES, NAMES, Stack, StackLayout, instruction
from hbvla_ros.sim.tasks.tower import Tower

SEED = 2_000_001
RED, GREEN, BLUE = range(3)
UPRIGHT = (1.0, 0.0, 0.0, 0.0)
LIMIT = 400


@pytest.fixture(scope='module')
def shared():
    return AlohaSimulation(task='stack')


@pytest.fixture
def simulation(shared):
    shared.reset(SEED, joints=START_ACTION)
    return shared


def arrange(simulation, order, places, settle=10):
    """Ask for ``order`` and put every box where wanted: (x, y, z) or (x, y, z, quaternion)."""
    simulation.layout = StackLayout(instruction(order), simulation.layout.poses, order)
    for name, place in zip(NAMES, places, strict=True):
        address = int(simulation.model.joint(f'{name}_joint').qposadr[0])
        pose = place if len(place) == 4 else (*place, UPRIGHT)
        simulation.data.qpos[address : address + 7] = (*pose[:3], *pose[3])
    for _ in range(settle):
        simulation.command(START_ACTION)
        simulation.step()


def turned(axis, angle):
    """Quaternion of a turn about one axis."""
    quaternion = np.zeros(4)
    quaternion[0], quaternion[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
    return tuple(quaternion)


def run(simulation, limit=LIMIT):
    """Steps until the expert has succeeded; None when the limit comes first."""
    expert = make_expert(simulation)
    for step in range(limit):
        simulation.command(expert.command())
        simulation.step()
        if simulation.success():
            return step
    return None


def seed_with(boxes):
    """A validation seed that asks for so many boxes."""
    return next(
        seed
        for seed in seed_range('validation', 100)
        if len(Stack().sample(np.random.default_rng(seed)).order) == boxes
    )


# What stands on what


def test_lying_boxes_are_as_high_as_they_lie(simulation):
    arrange(simulation, (RED, BLUE), [(-0.2, 0.5, 0.021), (0.0, 0.5, 0.021),
            (0.2, 0.5, 0.028, turned(1, math.pi / 2))])  # fmt: skip
    tower = Tower.seen(simulation.view, BOXES)
    assert tower.halves[BLUE] == pytest.approx(0.028, abs=1e-3)
    assert tower.bottom(BLUE) == pytest.approx(0.0, abs=1e-3)
    assert not tower.tilted(BLUE)


# Success and stages


def test_success_needs_the_hand_away_and_a_moment(simulation):
    places = [(-0.2, 0.5, 0.021), (0.0, 0.5, 0.021), (0.0, 0.5, 0.063)]
    arrange(simulation, (GREEN, BLUE), places, settle=3)
    assert not simulation.success()
    assert simulation.stage() == len(Stack.stages) - 1
    for _ in range(8):
        simulation.step()
    assert simulation.success()
    near = START_ACTION.copy()
    near[:6] = solve(0, (0.0, 0.5, 0.11))
    simulation.reset(SEED, joints=near)
    arrange(simulation, (GREEN, BLUE), places, settle=0)
    for _ in range(15):
        simulation.command(near)
        simulation.step()
    assert Tower.seen(simulation.view, BOXES).levels((GREEN, BLUE)) == 2
    assert simulation.stage() == 4
    assert not simulation.success()


@pytest.mark.parametrize(('order', 'count'), [((BLUE, GREEN), 0), ((RED, BLUE), 1)])
def test_another_order_is_no_success(simulation, order, count):
    places = [(-0.2, 0.5, 0.021), (0.0, 0.5, 0.021), (0.0, 0.5, 0.063)]
    arrange(simulation, order, places, settle=20)
    assert Tower.seen(simulation.view, BOXES).levels(order) == count
    assert not simulation.success()
    assert simulation.stage() < 4


def test_stages_come_in_order(shared):
    for boxes, expected in ((2, {0, 1, 2, 3, 4, 8}), (3, set(range(9)))):
        shared.reset(seed_with(boxes))
        expert, seen = make_expert(shared), [shared.stage()]
        while not shared.success():
            shared.command(expert.command())
            shared.step()
            seen.append(shared.stage())
        assert seen == sorted(seen)
        assert set(seen) == expected


def test_target_and_goal_follow_the_scene(shared):
    shared.reset(seed_with(3))
    task, order = shared.task, shared.layout.order
    lowest = shared.view.position(NAMES[order[0]])
    assert task.target(shared.view, shared.layout) == NAMES[order[1]]
    np.testing.assert_allclose(task.goal(shared.view, shared.layout)[:2], lowest[:2], atol=1e-6)
    seen = []
    expert = make_expert(shared)
    while not shared.success():
        shared.command(expert.command())
        shared.step()
        seen.append(task.target(shared.view, shared.layout))
    assert [name for name, _ in itertools.groupby(seen)] == [NAMES[order[1]], NAMES[order[2]], None]
    assert task.goal(shared.view, shared.layout) is None


# The expert


@pytest.mark.parametrize('seed', seed_range('validation', 12))
def test_expert_succeeds(shared, seed):
    shared.reset(seed)
    assert run(shared, limit=200) is not None


def test_expert_rests_at_home_after_success(simulation):
    assert run(simulation) is not None
    expert = make_expert(simulation)
    for _ in range(60):
        simulation.command(expert.command())
        simulation.step()
    np.testing.assert_allclose(simulation.joint_positions(), START_ACTION, atol=0.02)
    assert simulation.success()


def test_expert_has_no_memory(shared):
    shared.reset(seed_with(3))
    expert = make_expert(shared)
    states, commands = [], []
    for _ in range(60):
        states.append(shared.save_state())
        commands.append(expert.command())
        shared.command(commands[-1])
        shared.step()
    for step in (50, 7, 30):
        shared.restore_state(states[step])
        np.testing.assert_array_equal(expert.command(), commands[step])
        np.testing.assert_array_equal(make_expert(shared).command(), commands[step])


def test_expert_recovers_from_a_dropped_box(simulation):
    expert = make_expert(simulation)
    for _ in range(100):
        simulation.command(expert.command())
        simulation.step()
        if simulation.stage() >= 3:
            break
    held = simulation.task.target(simulation.view, simulation.layout)
    for _ in range(12):
        command = expert.command()
        command[[6, 13]] = 1.0
        simulation.command(command)
        simulation.step()
    assert not any(simulation.view.touched_by(held, arm) for arm in range(2))
    assert run(simulation) is not None


@pytest.mark.parametrize(
    ('order', 'places'),
    [
        # The tower has fallen to the side.
        ((RED, GREEN, BLUE), [(0.0, 0.5, 0.021), (0.05, 0.5, 0.021), (-0.06, 0.5, 0.021)]),
        # Two neighbours touch, side by side.
        ((RED, GREEN), [(-0.1, 0.5, 0.021), (-0.1, 0.545, 0.021), (0.2, 0.5, 0.02)]),
        # Stacked the wrong way round.
        ((RED, GREEN), [(0.0, 0.5, 0.063), (0.0, 0.5, 0.021), (0.2, 0.5, 0.02)]),
        # The wrong box lies where the right one belongs.
        ((RED, GREEN), [(0.0, 0.5, 0.021), (-0.15, 0.5, 0.021), (0.0, 0.5, 0.063)]),
        # The box that is to be moved lies beyond the reach of every arm that reaches the lowest.
        ((RED, GREEN), [(-0.22, 0.5, 0.021), (0.22, 0.5, 0.021), (0.1, 0.6, 0.02)]),
        # A block stands on end, and one is turned by half a right angle.
        (
            (BLUE, GREEN),
            [
                (0.15, 0.4, 0.021),
                (-0.15, 0.45, 0.021, turned(2, math.pi / 4)),
                (0.0, 0.5, 0.028, turned(1, math.pi / 2)),
            ],
        ),
        # The long side lies across the fingers.
        (
            (GREEN, BLUE),
            [
                (0.2, 0.4, 0.021),
                (0.0, 0.45, 0.021),
                (-0.15, 0.5, 0.02, turned(2, math.pi / 2)),
            ],
        ),
    ],
    ids=['fallen', 'touching', 'reverse', 'blocked', 'out of reach', 'on end', 'long side'],
)
def test_expert_recovers(simulation, order, places):
    arrange(simulation, order, places)
    assert not simulation.success()
    assert run(simulation) is not None


def test_expert_puts_the_wrong_box_down(simulation):
    places = [(-0.18, 0.45, 0.021), (0.0, 0.5, 0.021), (-0.18, 0.57, 0.02)]
    arrange(simulation, (GREEN, RED), places)
    expert = make_expert(simulation)
    for _ in range(60):
        simulation.command(expert.command())
        simulation.step()
        if simulation.view.position('red_cube')[2] > 0.08:
            break
    assert simulation.view.grasped_by('red_cube', 0)
    simulation.layout = StackLayout(
        instruction((GREEN, BLUE)), simulation.layout.poses, (GREEN, BLUE)
    )
    assert run(simulation) is not None
    red = simulation.view.position('red_cube')
    assert red[2] < 0.03
    assert math.dist(red[:2], simulation.view.position('green_cube')[:2]) > 0.06


def test_expert_mostly_succeeds_while_disturbed(shared):
    outcomes = []
    for seed in seed_range('validation', 5, offset=50):
        random = np.random.default_rng((seed, 1))
        shared.reset(seed)
        noise, expert = perturbation.CommandPerturbation(random), make_expert(shared)
        for _ in range(LIMIT):
            shared.command(noise.apply(expert.command(), shared.joint_positions()))
            shared.step()
            if shared.success():
                break
        outcomes.append(shared.success())
    assert sum(outcomes) >= 4
