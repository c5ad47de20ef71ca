# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The two arms: servos, grippers, collision shapes and wrist cameras."""

from __future__ import annotations

import numpy as np

from hbvla_ros.sim.engine import mujoco

ARMS = ('left', 'right')
ARM_JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
ACTION_SIZE = 14
START_ARM = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0])  # rad, the six joints at rest
START_ACTION = np.concatenate([START_ARM, [1.0], START_ARM, [1.0]])
GRIPPER_CLOSED = 0.01844  # m, finger slide at normalised 0
GRIPPER_OPEN = 0.058  # m, finger slide at normalised 1
BASE_X = 0.469
BASE_Y = 0.5
TIP_FORWARD = 0.138  # m from the gripper link to the grasp point, along the gripper
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
INVISIBLE = (0.0, 0.0, 0.0, 0.0)

# Contact classes: the arms touch each other, the objects, the table and the bucket; the links of
# one arm never touch each other.
_ARM_BITS = {'left': (1, 8), 'right': (8, 1)}
OBJECT_BITS = (2, 1 | 2 | 8)
FIXED_BITS = (0, 1 | 2 | 8)


def add_damping(model: mujoco.MjModel) -> None:
    """Set the damping of every servo of the compiled model."""
    # On the compiled model, because the type of the specification's field differs by version.
    for side in ARMS:
        for name, (_, damping) in _SERVOS.items():
            model.dof_damping[model.joint(f'vx300s_{side}/{name}').dofadr] = damping
        for finger in ARMS:
            joint = model.joint(f'vx300s_{side}/{finger}_finger')
            model.dof_damping[joint.dofadr] = _FINGER_SERVO[1]


def edit_arm(spec: mujoco.MjSpec, side: str) -> None:
    """Give one arm our servos, collision shapes, grasp point and wrist camera."""
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
            rgba=INVISIBLE,
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
        rgba=INVISIBLE,
        group=3,
    )
    gripper.add_site(name=f'tip_{side}', pos=[TIP_FORWARD, 0.0, 0.0], rgba=INVISIBLE)
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
