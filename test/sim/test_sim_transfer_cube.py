# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""gym-aloha's transfer of a cube, checked against the installed package where it can be."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from hbvla_ros.sim import scene
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.objects import RED_CUBE
from hbvla_ros.sim.seeds import seed_range
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation
from hbvla_ros.sim.tasks.transfer_cube import BOX_X, BOX_Y, TransferCube

SEED = 2_000_001
LEFT, RIGHT = 0, 1


@pytest.fixture(scope='module')
def shared():
    return AlohaSimulation(task='transfer_cube')


@pytest.fixture
def simulation(shared):
    shared.reset(SEED, joints=START_ACTION)
    return shared


def gym_aloha_poses(count):
    """Start poses of the cube as the installed package draws them, (count, 7)."""
    path = scene.asset_path().parents[1] / 'utils.py'
    spec = importlib.util.spec_from_file_location('gym_aloha_utils', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return np.array([module.sample_box_pose(seed) for seed in range(count)])


def test_cube_starts_where_gym_aloha_puts_it():
    ours = [TransferCube().sample(np.random.default_rng(seed)).poses[0] for seed in range(400)]
    for poses in (np.array(ours), gym_aloha_poses(400)):
        for axis, (low, high) in ((0, BOX_X), (1, BOX_Y)):
            assert poses[:, axis].min() >= low and poses[:, axis].max() <= high
            assert np.ptp(poses[:, axis]) > 0.97 * (high - low)
        assert np.array_equal(poses[:, 3:], np.tile((1, 0, 0, 0), (len(poses), 1)))


def test_cube_has_the_size_of_gym_aloha():
    theirs = mujoco.MjModel.from_xml_path(str(scene.asset_path())).geom('red_box')
    np.testing.assert_allclose(RED_CUBE.parts[0].size, theirs.size)


@pytest.mark.parametrize('seed', seed_range('validation', 4, offset=120))
def test_expert_succeeds_stage_by_stage(shared, seed):
    shared.reset(seed)
    expert, seen, full_reward = make_expert(shared), [0], None
    for _ in range(150):
        shared.command(expert.command())
        shared.step()
        if shared.stage() != seen[-1]:
            seen.append(shared.stage())
        if full_reward is None and shared.stage() == 4:
            # gym-aloha's success: the right gripper still holds the cube.
            full_reward = shared.view.grasped_by(RED_CUBE.name, RIGHT)
    assert seen == [0, 1, 2, 4, 5] and full_reward and shared.success()
    assert shared.view.grasped_by(RED_CUBE.name, LEFT)
    assert not shared.view.touched_by(RED_CUBE.name, RIGHT)


@pytest.mark.parametrize('x', BOX_X)
@pytest.mark.parametrize('y', BOX_Y)
def test_expert_reaches_all_of_the_box(simulation, x, y):
    address = int(simulation.model.joint(f'{RED_CUBE.name}_joint').qposadr[0])
    simulation.data.qpos[address : address + 2] = (x, y)
    expert = make_expert(simulation)
    for _ in range(110):
        simulation.command(expert.command())
        simulation.step()
    assert simulation.success()


def test_left_arm_alone_gets_the_full_reward_but_no_success(simulation):
    address = int(simulation.model.joint(f'{RED_CUBE.name}_joint').qposadr[0])
    tip = simulation.tip_positions()[LEFT]
    command = START_ACTION.copy()
    for _ in range(40):
        # Put between the fingers of the left arm, which closes on it.
        if command[6] == 1.0 or simulation.stage() == 0:
            simulation.data.qpos[address : address + 3] = tip
        command[6] = 0.0
        simulation.command(command)
        simulation.step()
    assert simulation.view.grasped_by(RED_CUBE.name, LEFT)
    assert simulation.stage() == 4 and not simulation.success()
