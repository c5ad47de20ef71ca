# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""An object from one arm to the other."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from hbvla_ros.sim.arms import START_ARM
from hbvla_ros.sim.demonstrations import roll_out
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.objects import OBJECTS
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.hand_over import (
    HandOver,
    HandOverProgress,
    follow,
    held_place,
    reward,
)

SEED = 2_000_001
LEFT, RIGHT = 0, 1


@pytest.fixture(scope='module')
def shared():
    return AlohaSimulation(task='hand_over')


@pytest.fixture
def simulation(shared):
    shared.reset(SEED, joints=START_ACTION)
    return shared


class Touches:
    """Stands in for a view: says who touches the object."""

    def __init__(self, who, time=0.0):
        self.who, self.time = who, time

    def touching(self, first, second):
        assert second == 'table'
        return 't' in self.who

    def touched_by(self, name, arm):
        return 'lr'[arm] in self.who


def tracked(*moments, giver=RIGHT):
    """Progress after moments 0.2 s apart, each told by who touches: t(able), l(eft), r(ight)."""
    progress = HandOverProgress()
    for number, who in enumerate(moments):
        progress = follow(Touches(who, 0.2 * number), 'cube', giver, progress)
    return progress


def target_name(simulation):
    return OBJECTS[simulation.layout.target].name


def run(simulation, expert, steps=300, until=None):
    """Let the expert act until success, or until a condition; tells whether it came to that."""
    for _ in range(steps):
        simulation.command(expert.command())
        simulation.step()
        if simulation.success() if until is None else until():
            return True
    return False


def move_target(simulation, x, y):
    """Stand the target somewhere else."""
    name = target_name(simulation)
    address = int(simulation.model.joint(f'{name}_joint').qposadr[0])
    simulation.data.qpos[address : address + 2] = (x, y)
    simulation.step()


@pytest.mark.parametrize(
    'who, value',
    [('t', 0), ('', 0), ('rt', 1), ('r', 2), ('lt', 3), ('lrt', 3), ('l', 4), ('lr', 4)],
)
def test_reward_is_that_of_gym_aloha(who, value):
    assert reward(Touches(who), 'cube', RIGHT) == value
    mirrored = who.translate(str.maketrans('lr', 'rl'))
    assert reward(Touches(mirrored), 'cube', LEFT) == value


def test_done_once_the_giver_has_let_go():
    assert tracked('t', 'rt', 'r', 'lr').done_since is None
    done = tracked('t', 'rt', 'r', 'lr', 'l', 'l')
    assert done.done_since == pytest.approx(0.8) and done.best_stage == 5
    assert not HandOver().success(done, 1.0) and HandOver().success(done, 1.1)


def test_receiver_must_not_pick_it_up_itself():
    alone = tracked('t', 'lt', 'l', 'l', 'l')
    assert alone.done_since is None and alone.best_stage == 4
    touched_before = tracked('t', 'rt', 'r', 't', 'lt', 'l', 'l')
    assert touched_before.done_since is None
    thrown = tracked('t', 'rt', 'r', '', 'l', 'l')
    assert thrown.done_since is None


def test_what_falls_must_be_handed_over_again():
    dropped = tracked('rt', 'r', 'lr', 'l', 't', 'lt', 'l')
    assert dropped.done_since is None and dropped.best_stage == 5
    assert tracked('rt', 'r', 'lr', 'l', '', 'l').done_since == pytest.approx(1.0)


def test_every_object_goes_to_either_arm():
    task, seen = HandOver(), set()
    for seed in range(80):
        layout = task.sample(np.random.default_rng(seed))
        phrase, arm = OBJECTS[layout.target].phrase, ('left', 'right')[layout.receiver]
        assert layout.instruction == f'hand the {phrase} to the {arm} arm'
        seen.add((layout.target, layout.receiver))
        places = layout.poses[:, :2]
        assert np.abs(places[:, 0]).max() <= 0.10
        assert places[:, 1].min() >= 0.38 and places[:, 1].max() <= 0.62
        assert min(math.dist(places[i], places[j]) for i, j in ((0, 1), (0, 2), (1, 2))) >= 0.10
    assert len(seen) == len(task.instructions) == 6


@pytest.mark.parametrize('seed', seed_range('validation', 4, offset=120))
def test_expert_hands_over_and_the_receiver_keeps_it(shared, seed):
    shared.reset(seed)
    receiver, name = shared.layout.receiver, target_name(shared)
    expert, seen = make_expert(shared), [0]
    for _ in range(160):
        shared.command(expert.command())
        shared.step()
        if shared.stage() != seen[-1]:
            seen.append(shared.stage())
    # Touched on the table, lifted, touched by both, let go.
    assert seen == [0, 1, 2, 4, 5] and shared.success()
    assert shared.view.grasped_by(name, receiver)
    np.testing.assert_allclose(shared.tip_positions()[receiver], held_place(receiver), atol=0.01)
    giver = shared.joint_positions()[7 * (1 - receiver) :][:7]
    np.testing.assert_allclose(giver, [*START_ARM, 1.0], atol=0.02)


def test_instruction_decides_which_arm_gives(simulation):
    layout = simulation.layout
    for receiver in (LEFT, RIGHT):
        simulation.reset(SEED, joints=START_ACTION)
        simulation.layout = dataclasses.replace(layout, receiver=receiver)
        assert run(simulation, make_expert(simulation))
        x = simulation.view.position(target_name(simulation))[0]
        assert (x < 0) == (receiver == LEFT)
        others = [prop.name for prop in OBJECTS if prop.name != target_name(simulation)]
        assert simulation.view.positions(others)[:, 2].max() < 0.03


def test_other_object_does_not_count(simulation):
    layout = simulation.layout
    other = (layout.target + 1) % 3
    simulation.layout = dataclasses.replace(layout, target=other)
    expert = make_expert(simulation)
    for _ in range(130):
        simulation.layout = dataclasses.replace(layout, target=other)
        command = expert.command()
        simulation.layout = layout
        simulation.command(command)
        simulation.step()
    assert simulation.view.grasped_by(OBJECTS[other].name, layout.receiver)
    assert not simulation.success() and simulation.stage() == 0


def test_expert_takes_again_what_the_giver_dropped(simulation):
    name, giver = target_name(simulation), 1 - simulation.layout.receiver
    expert = make_expert(simulation)
    assert run(simulation, expert, until=lambda: simulation.view.position(name)[2] > 0.15)
    for _ in range(12):
        command = expert.command()
        command[7 * giver + 6] = 1.0
        simulation.command(command)
        simulation.step()
    assert simulation.view.position(name)[2] < 0.05
    assert run(simulation, expert)


def test_expert_waits_for_the_receiver(simulation):
    name, receiver = target_name(simulation), simulation.layout.receiver
    expert = make_expert(simulation)
    for _ in range(150):
        command = expert.command()
        command[7 * receiver : 7 * receiver + 7] = START_ACTION[:7]
        simulation.command(command)
        simulation.step()
    assert simulation.view.grasped_by(name, 1 - receiver)
    assert run(simulation, expert)


@pytest.mark.parametrize('x, y', [(0.17, 0.42), (0.2, 0.6)])
def test_receiver_brings_what_the_giver_cannot_reach(simulation, x, y):
    giver = 1 - simulation.layout.receiver
    move_target(simulation, x if giver == LEFT else -x, y)
    assert run(simulation, make_expert(simulation), 350)


def test_progress_is_saved_with_the_state(simulation):
    expert = make_expert(simulation)
    assert run(simulation, expert, until=lambda: simulation.stage() == 4)
    state = simulation.save_state()
    assert run(simulation, expert)
    simulation.restore_state(state)
    assert not simulation.success() and simulation.stage() == 4
    assert run(simulation, expert)


def test_most_disturbed_episodes_still_succeed(shared):
    shared.reset(SEED)
    outcomes = []
    for seed in seed_range('validation', 6, offset=40):
        roll_out(shared, seed)
        outcomes.append(shared.success())
    assert sum(outcomes) >= 5
