# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The MuJoCo scene: two ViperX arms, a table, cameras, and the props of a task.

The arm description and meshes come from the installed ``gym-aloha`` package and are edited in
memory with ``mujoco.MjSpec``; nothing of them is copied. Facts and traps: closed-loop
specification, section 1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.arms import ARMS, FIXED_BITS, INVISIBLE, OBJECT_BITS, add_damping, edit_arm
from hbvla_ros.sim.engine import mujoco
from hbvla_ros.sim.meshes import coarsen, read_triangles
from hbvla_ros.sim.objects import SHAPES, Prop

TIMESTEP = 0.002
_SHAPE_TYPES = {name: getattr(mujoco.mjtGeom, f'mjGEOM_{name.upper()}') for name in SHAPES}

_MESH_CELL = 4.0  # mm
_LIGHTS = (((-0.6, -0.4, 1.4), (0.4, 0.6, -1.0)), ((0.6, 1.2, 1.2), (-0.4, -0.5, -1.0)))

CAMERAS = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
VIDEO_CAMERA = 'cam_video'


def asset_path() -> Path:
    """Return the arm description shipped by gym-aloha.

    Raises:
        HbvlaError: gym-aloha is not installed or lacks the file.
    """
    package = importlib.util.find_spec('gym_aloha')
    if package is None or not package.submodule_search_locations:
        raise HbvlaError('package gym-aloha not found: install it with "pip install gym-aloha"')
    path = Path(package.submodule_search_locations[0]) / 'assets/bimanual_viperx_transfer_cube.xml'
    if not path.is_file():
        raise HbvlaError(f'{path}: missing from gym-aloha; install gym-aloha 0.1.x again')
    return path


def build_model(props: Sequence[Prop]) -> mujoco.MjModel:
    """Compile the scene with these props.

    Returns:
        The model: 16 robot joints first, then one free joint for each movable prop in the given
        order, called ``<name>_joint``; fixed props are mocap bodies; 16 position actuators.

    Raises:
        HbvlaError: the assets cannot be found or compiled.
    """
    path = asset_path()
    if not hasattr(mujoco.MjSpec, 'delete'):
        raise HbvlaError(f'mujoco {mujoco.__version__} is too old: install mujoco 3.4 or later')
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        for key in list(spec.keys):
            spec.delete(key)
        spec.delete(spec.body('box'))
        for camera in list(spec.cameras):
            spec.delete(camera)
        for light in list(spec.lights):
            spec.delete(light)
        _coarsen_meshes(spec, path.parent)
        _options(spec)
        _visuals(spec)
        _table(spec)
        for side in ARMS:
            edit_arm(spec, side)
        for prop in props:
            _prop(spec, prop)
        model = spec.compile()
    except (ValueError, KeyError, AttributeError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HbvlaError(f'{path}: cannot build the scene: {line}') from error
    add_damping(model)
    return model


def _coarsen_meshes(spec: mujoco.MjSpec, folder: Path) -> None:
    for mesh in spec.meshes:
        if not mesh.name.startswith('vx300s'):
            continue
        cell = _MESH_CELL if 'finger' not in mesh.name else _MESH_CELL / 2
        vertices, faces = coarsen(read_triangles(folder / mesh.file), cell)
        mesh.file = ''
        mesh.uservert = vertices.ravel().astype(np.float32)
        mesh.userface = faces.ravel()


def _options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0


def _visuals(spec: mujoco.MjSpec) -> None:
    # Shadows and multisampling make software rendering twenty times slower.
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth = 1280
    spec.visual.global_.offheight = 960
    spec.visual.map.znear = 0.01
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.1, 0.1, 0.1]
    world = spec.worldbody
    for position, direction in _LIGHTS:
        light = world.add_light(pos=position, dir=direction, castshadow=False)
        light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        light.diffuse = [0.35, 0.35, 0.35]
        light.specular = [0.15, 0.15, 0.15]
    _look_at(world, 'cam_high', (0.0, 0.02, 0.66), (0.0, 0.525, 0.06), 52.0)
    _look_at(world, VIDEO_CAMERA, (0.0, -0.28, 0.62), (0.0, 0.50, 0.10), 50.0)


def _look_at(
    body: mujoco.MjsBody,
    name: str,
    position: tuple[float, float, float],
    target: tuple[float, float, float],
    field_of_view: float,
) -> None:
    """Add a fixed camera at ``position`` (m) that looks at ``target``; view angle in degrees."""
    back = np.asarray(position, dtype=float) - np.asarray(target, dtype=float)
    back /= np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, up, back], axis=1).ravel())
    body.add_camera(name=name, pos=position, quat=quaternion, fovy=field_of_view)


def _table(spec: mujoco.MjSpec) -> None:
    # The table top is a mesh: single contact points let objects rock, so a plane carries them.
    table = spec.geom('table')
    table.contype, table.conaffinity = 0, 0
    table.rgba = [0.55, 0.50, 0.45, 1.0]
    contype, conaffinity = FIXED_BITS
    spec.worldbody.add_geom(
        name='table_plane',
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.6, 0.4, 0.05],
        pos=[0.0, 0.6, 0.0],
        contype=contype,
        conaffinity=conaffinity,
        condim=4,
        friction=[0.8, 0.005, 0.0001],
        rgba=INVISIBLE,
    )
    floor = spec.worldbody.add_geom(
        name='floor',
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[4.0, 4.0, 1.0],
        pos=[0.0, 0.6, -0.75],
        contype=0,
        conaffinity=0,
        rgba=[0.80, 0.82, 0.84, 1.0],
    )
    floor.group = 0
    for number, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        quaternion = np.zeros(4)
        mujoco.mju_quatZ2Vec(quaternion, np.array([-float(x), -float(y), 0.0]))
        spec.worldbody.add_geom(
            name=f'wall_{number}',
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[4.0, 4.0, 1.0],
            pos=[2.0 * x, 0.6 + 2.0 * y, 0.0],
            quat=quaternion,
            contype=0,
            conaffinity=0,
            rgba=[0.86, 0.88, 0.90, 1.0],
        )


def _prop(spec: mujoco.MjSpec, prop: Prop) -> None:
    height = 0.3 if prop.movable else 0.0
    body = spec.worldbody.add_body(name=prop.name, pos=[0.0, 0.5, height], mocap=not prop.movable)
    if prop.movable:
        body.mass = prop.mass
        body.inertia = list(prop.inertia)
        body.ipos = [0.0, 0.0, 0.0]
        body.explicitinertial = True
        body.add_freejoint(name=f'{prop.name}_joint')
    bits = OBJECT_BITS if prop.movable else FIXED_BITS
    for part in prop.parts:
        contype, conaffinity = bits if part.collides else (0, 0)
        body.add_geom(
            name=f'{prop.name}_{part.name}' if part.name else prop.name,
            type=_SHAPE_TYPES[part.shape],
            size=list(part.size),
            pos=list(part.position),
            quat=list(part.quaternion),
            contype=contype,
            conaffinity=conaffinity,
            condim=4,
            friction=list(prop.friction),
            rgba=[*part.colour, 1.0],
        )
