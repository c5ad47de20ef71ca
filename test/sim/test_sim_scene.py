# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import scene
from hbvla_ros.sim.arms import ARMS
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.objects import BUCKET, OBJECTS, Part, Prop
from hbvla_ros.sim.simulation import AlohaSimulation

PROPS = (BUCKET, *OBJECTS)
NAMES = [prop.name for prop in OBJECTS]


@pytest.fixture(scope='module')
def model():
    return scene.build_model(PROPS)


def test_robot_joints_come_first_then_the_objects(model):
    names = [model.joint(number).name for number in range(model.njnt)]
    assert names[0] == 'vx300s_left/waist' and names[8] == 'vx300s_right/waist'
    assert names[16:] == [f'{kind.name}_joint' for kind in OBJECTS]
    assert model.nu == 16 and model.nq == 16 + 7 * len(OBJECTS)


def test_cameras_are_those_promised(model):
    names = {model.camera(number).name for number in range(model.ncam)}
    assert names == {*scene.CAMERAS, scene.VIDEO_CAMERA}


def test_slow_rendering_is_switched_off(model):
    assert model.vis.quality.shadowsize == 0 and model.vis.quality.offsamples == 0
    assert not model.light_castshadow.any()


def test_two_builds_are_the_same_to_the_byte(model):
    def content(one):
        buffer = np.empty(mujoco.mj_sizeModel(one), np.uint8)
        mujoco.mj_saveModel(one, None, buffer)
        return buffer

    assert np.array_equal(content(model), content(scene.build_model(PROPS)))


def test_fingers_of_one_arm_never_touch_each_other(model):
    for side in ARMS:
        left = model.geom(f'vx300s_{side}/left_finger_pad')
        right = model.geom(f'vx300s_{side}/right_finger_pad')
        assert not (left.contype & right.conaffinity).any()
    for other in ('red_cube', 'table_plane', 'bucket_floor', 'vx300s_right/hand_box'):
        pad = model.geom('vx300s_left/left_finger_pad')
        geom = model.geom(other)
        assert (pad.contype & geom.conaffinity).any() or (geom.contype & pad.conaffinity).any()


def test_objects_rest_where_they_were_put():
    simulation = AlohaSimulation()
    simulation.reset(11)
    before = simulation.view.positions(NAMES)
    simulation.advance(2.0)
    assert np.abs(simulation.view.positions(NAMES) - before).max() < 2e-3


def test_props_decide_joints_masses_and_collisions():
    base = Part('base', 'box', (0.03, 0.03, 0.01), (0.5, 0.5, 0.5))
    mark = Part('mark', 'cylinder', (0.01, 0.001, 0), (1, 1, 1), (0, 0, 0.011), collides=False)
    peg = Prop('peg', 'peg', (Part('', 'capsule', (0.01, 0.05, 0), (1, 0, 0)),), mass=0.2)
    model = scene.build_model((Prop('socket', 'socket', (base, mark), movable=False), peg))
    assert [model.joint(number).name for number in range(16, model.njnt)] == ['peg_joint']
    assert model.body('peg').mass == 0.2 and model.body('socket').mocapid[0] == 0
    assert model.geom('socket_base').conaffinity[0] and not model.geom('socket_mark').conaffinity[0]
    np.testing.assert_allclose(model.geom('socket_mark').pos, (0, 0, 0.011))


def test_missing_assets_are_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(HbvlaError, match='pip install gym-aloha'):
        scene.asset_path()
