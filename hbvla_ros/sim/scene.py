# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The MuJoCo scene: two ViperX arms, a table, a bucket and three objects.

The arm description and meshes come from the installed ``gym-aloha`` package and are edited in
memory with ``mujoco.MjSpec``; nothing of them is copied. Facts and traps: closed-loop
specification, section 1.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim.meshes import coarsen, read_triangles

ARMS = ('left', 'right')
ARM_JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
GRIPPER_CLOSED = 0.01844  # m, finger slide at normalised 0
GRIPPER_OPEN = 0.058  # m, finger slide at normalised 1
BASE_X = 0.469
BASE_Y = 0.5
TIP_FORWARD = 0.138  # m from the gripper link to the grasp point, along the gripper
TIMESTEP = 0.002

# Servo stiffness and damping per joint. The damping replaces the asset's dry friction, whose
# dead zone of several degrees would stop the arm short of its target.
_SERVOS = {
    'waist': (800.0, 36.0),
    'shoulder': (1600.0, 72.0),
    'elbow': (800.0, 36.0),
    'forearm_roll': (200.0, 9.0),
    'wrist_angle': (200.0, 9.0),
    'wrist_rotate': (100.0, 4.5),
}
_FINGER_SERVO = (300.0, 18.0)
_FINGER_FORCE = 12.0  # N
_ARMATURE = 0.02
_MESH_CELL = 4.0  # mm
_LIGHTS = (((-0.6, -0.4, 1.4), (0.4, 0.6, -1.0)), ((0.6, 1.2, 1.2), (-0.4, -0.5, -1.0)))
_INVISIBLE = (0.0, 0.0, 0.0, 0.0)

# Contact classes: the arms touch each other, the objects, the table and the bucket; the links of
# one arm never touch each other.
_ARM_BITS = {'left': (1, 8), 'right': (8, 1)}
_OBJECT_BITS = (2, 1 | 2 | 8)
_FIXED_BITS = (0, 1 | 2 | 8)

BUCKET_HALF = 0.07  # m, outside
BUCKET_WALL = 0.004
BUCKET_HEIGHT = 0.06
BUCKET_FLOOR = 0.006


@dataclass(frozen=True)
class ObjectKind:
    """One movable object.

    ``size`` is the MuJoCo half size in m, ``half_height`` the height of its centre when it
    stands on the table in m.
    """

    name: str
    phrase: str
    shape: str
    size: tuple[float, float, float]
    half_height: float
    colour: tuple[float, float, float]


OBJECTS = (
    ObjectKind('red_cube', 'red cube', 'box', (0.02, 0.02, 0.02), 0.02, (0.85, 0.10, 0.10)),
    ObjectKind(
        'green_cylinder',
        'green cylinder',
        'cylinder',
        (0.019, 0.023, 0.0),
        0.023,
        (0.10, 0.65, 0.20),
    ),
    ObjectKind('blue_block', 'blue block', 'box', (0.025, 0.016, 0.02), 0.02, (0.12, 0.30, 0.90)),
)
BUCKET_COLOUR = (0.95, 0.70, 0.15, 1.0)
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


def build_model() -> mujoco.MjModel:
    """Compile the scene.

    Returns:
        The model: 16 robot joints first, then one free joint per object; 16 position actuators.

    Raises:
        HbvlaError: the assets cannot be found or compiled.
    """
    path = asset_path()
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
            _arm(spec, side)
        _bucket(spec)
        for kind in OBJECTS:
            _object(spec, kind)
        model = spec.compile()
    except (ValueError, KeyError, AttributeError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HbvlaError(f'{path}: cannot build the scene: {line}') from error
    _damp(model)
    return model


def _damp(model: mujoco.MjModel) -> None:
    # On the compiled model, because the type of the specification's field differs by version.
    for side in ARMS:
        for name, (_, damping) in _SERVOS.items():
            model.dof_damping[model.joint(f'vx300s_{side}/{name}').dofadr] = damping
        for finger in ARMS:
            joint = model.joint(f'vx300s_{side}/{finger}_finger')
            model.dof_damping[joint.dofadr] = _FINGER_SERVO[1]


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
    contype, conaffinity = _FIXED_BITS
    spec.worldbody.add_geom(
        name='table_plane',
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.6, 0.4, 0.05],
        pos=[0.0, 0.6, 0.0],
        contype=contype,
        conaffinity=conaffinity,
        condim=4,
        friction=[0.8, 0.005, 0.0001],
        rgba=_INVISIBLE,
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


def _arm(spec: mujoco.MjSpec, side: str) -> None:
    prefix = f'vx300s_{side}'
    contype, conaffinity = _ARM_BITS[side]
    for geom in spec.geoms:
        if geom.name.startswith(prefix):
            geom.contype, geom.conaffinity = 0, 0
            dark = any(part in geom.name for part in ('finger', 'prop', 'bar'))
            geom.rgba = [0.32, 0.33, 0.36, 1.0] if dark else [0.20, 0.21, 0.24, 1.0]
    for body in spec.bodies:
        if body.name.startswith(prefix):
            body.gravcomp = 1.0
    for name, (stiffness, _) in _SERVOS.items():
        _servo(spec, f'{prefix}/{name}', stiffness, _ARMATURE, None)
    for finger, sign in (('left', 1.0), ('right', -1.0)):
        name = f'{prefix}/{finger}_finger'
        limits = sorted((sign * GRIPPER_CLOSED, sign * GRIPPER_OPEN))
        _servo(spec, name, _FINGER_SERVO[0], 0.1, _FINGER_FORCE)
        joint = spec.joint(name)
        joint.range = limits
        for actuator in spec.actuators:
            if actuator.target == name:
                actuator.ctrlrange = limits
        spec.body(f'{name}_link').add_geom(
            name=f'{name}_pad',
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.032, 0.004, 0.008],
            pos=[0.053, -sign * 0.0184, 0.0],
            contype=contype,
            conaffinity=conaffinity,
            condim=4,
            friction=[1.2, 0.01, 0.0005],
            rgba=_INVISIBLE,
            group=3,
        )
    gripper = spec.body(f'{prefix}/gripper_link')
    gripper.add_geom(
        name=f'{prefix}/hand_box',
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.035, 0.07, 0.03],
        pos=[0.042, 0.0, 0.0],
        contype=contype,
        conaffinity=conaffinity,
        rgba=_INVISIBLE,
        group=3,
    )
    gripper.add_site(name=f'tip_{side}', pos=[TIP_FORWARD, 0.0, 0.0], rgba=_INVISIBLE)
    camera = gripper.add_camera(name=f'cam_{side}_wrist', pos=[-0.05, 0.0, 0.13], fovy=75.0)
    camera.mode = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY
    camera.targetbody = f'{prefix}/camera_focus'


def _servo(
    spec: mujoco.MjSpec,
    name: str,
    stiffness: float,
    armature: float,
    force: float | None,
) -> None:
    joint = spec.joint(name)
    joint.frictionloss = 0.0
    joint.armature = armature
    for actuator in spec.actuators:
        if actuator.target == name:
            actuator.gainprm[0] = stiffness
            actuator.biasprm[1] = -stiffness
            if force is not None:
                actuator.forcerange = [-force, force]
                actuator.forcelimited = True


def _bucket(spec: mujoco.MjSpec) -> None:
    bucket = spec.worldbody.add_body(name='bucket', pos=[0.0, 0.5, 0.0], mocap=True)
    contype, conaffinity = _FIXED_BITS
    half, wall, height = BUCKET_HALF, BUCKET_WALL, BUCKET_HEIGHT
    parts = {
        'floor': ([half, half, BUCKET_FLOOR / 2], [0.0, 0.0, BUCKET_FLOOR / 2]),
        'east': ([wall, half, height / 2], [half - wall, 0.0, height / 2]),
        'west': ([wall, half, height / 2], [wall - half, 0.0, height / 2]),
        'north': ([half, wall, height / 2], [0.0, half - wall, height / 2]),
        'south': ([half, wall, height / 2], [0.0, wall - half, height / 2]),
    }
    for name, (size, position) in parts.items():
        bucket.add_geom(
            name=f'bucket_{name}',
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=size,
            pos=position,
            contype=contype,
            conaffinity=conaffinity,
            condim=4,
            friction=[0.6, 0.005, 0.0001],
            rgba=BUCKET_COLOUR,
        )


def _object(spec: mujoco.MjSpec, kind: ObjectKind) -> None:
    body = spec.worldbody.add_body(name=kind.name, pos=[0.0, 0.5, 0.3])
    body.mass = 0.05
    # More than the solid's own inertia: it keeps light objects from rocking in the grasp.
    body.inertia = [5e-5, 5e-5, 5e-5]
    body.ipos = [0.0, 0.0, 0.0]
    body.explicitinertial = True
    body.add_freejoint(name=f'{kind.name}_joint')
    contype, conaffinity = _OBJECT_BITS
    shape = mujoco.mjtGeom.mjGEOM_BOX if kind.shape == 'box' else mujoco.mjtGeom.mjGEOM_CYLINDER
    body.add_geom(
        name=kind.name,
        type=shape,
        size=list(kind.size),
        contype=contype,
        conaffinity=conaffinity,
        condim=4,
        friction=[1.2, 0.01, 0.0005],
        rgba=[*kind.colour, 1.0],
    )
