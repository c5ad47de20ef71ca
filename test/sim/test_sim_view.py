# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.simulation import START_ACTION, AlohaSimulation

SEED = 2_000_010


@pytest.fixture(scope='module')
def simulation():
    return AlohaSimulation()


def until_lifted(simulation):
    """Run the expert until it holds its object in the air; returns the object and the arm."""
    simulation.reset(SEED)
    expert = make_expert(simulation)
    while simulation.stage() < 2:
        simulation.command(expert.command())
        simulation.step()
    name = simulation.task.target(simulation.view, simulation.layout)
    return name, int(simulation.view.position(name)[0] > 0)


def test_things_stand_on_the_table(simulation):
    simulation.reset(SEED)
    simulation.advance(0.2)
    view = simulation.view
    for name in ('red_cube', 'green_cylinder', 'blue_block'):
        assert view.touching(name, 'table') and view.touching('table', name)
        assert not view.touching(name, 'bucket')
        assert not view.touched_by(name, 0) and not view.touched_by(name, 1)
        np.testing.assert_allclose(view.rotation(name)[:, 2], (0, 0, 1), atol=1e-3)
        assert np.abs(view.velocity(name)).max() < 1e-3


def test_grasped_object_touches_both_fingers_and_not_the_table(simulation):
    name, arm = until_lifted(simulation)
    view = simulation.view
    assert view.grasped_by(name, arm) and view.touched_by(name, arm)
    assert not view.touched_by(name, 1 - arm) and not view.touching(name, 'table')
    assert view.velocity(name)[2] > 0.02
    assert np.linalg.norm(view.tips()[arm] - view.position(name)) < 0.03


def test_gripper_axes(simulation):
    until_lifted(simulation)
    simulation.reset(SEED, joints=START_ACTION)
    simulation.advance(0.1)
    left, right = simulation.view.tip_rotations()
    # At rest the grippers face each other and the fingers open along y.
    assert left[0, 0] > 0.9 and right[0, 0] < -0.9
    assert abs(left[1, 1]) > 0.99 and abs(right[1, 1]) > 0.99


def test_contacts_are_of_now_after_a_restore(simulation):
    name, arm = until_lifted(simulation)
    state = simulation.save_state()
    simulation.reset(SEED)
    assert not simulation.view.grasped_by(name, arm)
    simulation.restore_state(state)
    assert simulation.view.grasped_by(name, arm)


def test_reading_contacts_does_not_change_the_future(simulation):
    ends = []
    for reads in (False, True):
        until_lifted(simulation)
        for _ in range(20):
            if reads:
                assert not simulation.view.touching('bucket', 'table')
            simulation.step()
        ends.append(simulation.save_state().physics)
    assert np.array_equal(*ends)


def test_fixed_props_do_not_move(simulation):
    simulation.reset(SEED)
    np.testing.assert_array_equal(
        simulation.view.position('bucket'), simulation.layout.poses[0, :3]
    )
    assert not simulation.view.velocity('bucket').any()


def test_unknown_prop_names_those_there_are(simulation):
    for read in (simulation.view.position, simulation.view.rotation, simulation.view.velocity):
        with pytest.raises(HbvlaError, match="prop 'anvil': .* bucket, red_cube"):
            read('anvil')
    with pytest.raises(HbvlaError, match="prop 'left_gripper'"):
        simulation.view.touching('red_cube', 'left_gripper')
