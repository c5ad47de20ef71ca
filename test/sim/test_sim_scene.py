# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import scene
from hbvla_ros.sim.arms import ARMS
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.objects import OBJECTS
from hbvla_ros.sim.simulation import AlohaSimulation


@pytest.fixture(scope='module')
def model():
    return scene.build_model()


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

    assert np.array_equal(content(model), content(scene.build_model()))


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
    before = simulation.object_positions()
    simulation.advance(2.0)
    assert np.abs(simulation.object_positions() - before).max() < 2e-3


def test_missing_assets_are_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(HbvlaError, match='pip install gym-aloha'):
        scene.asset_path()
