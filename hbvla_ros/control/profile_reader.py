# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From a profile's YAML to its parts, refusing everything that is not exactly right."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from hbvla_ros.control.profile_types import (
    ADAPTERS,
    ArmProfile,
    CameraProfile,
    GripperMap,
    SafetyProfile,
)
from hbvla_ros.control.strict import Section, read_yaml

FORMAT_VERSION = 1
_MAX_RATE = 1000.0
_ANGLE_UNITS = {'rad': 1.0, 'deg': math.pi / 180.0}
_GRIPPER_UNITS = ('rad', 'deg', 'm', 'ratio', 'raw')


class Head(NamedTuple):
    """The profile's own keys, outside arms, cameras and safety."""

    robot: str
    control_rate: float
    joint_state_rate: float


def read_profile(
    path: Path,
) -> tuple[tuple[ArmProfile, ...], tuple[CameraProfile, ...], SafetyProfile, Head]:
    """Read and check one profile.

    Raises:
        HbvlaError: the first fault found, naming the file and the key.
    """
    top = read_yaml(path)
    version = top.integer('format_version')
    if version != FORMAT_VERSION:
        raise top.error('format_version', f'{version} is not supported; this is {FORMAT_VERSION}')
    robot = top.text('robot')
    rates = top.section('rates')
    head = Head(
        robot, rates.number('control', 1.0, _MAX_RATE), rates.number('joint_states', 1.0, _MAX_RATE)
    )
    rates.finish()
    arms = _read_arms(top)
    cameras = _read_cameras(top)
    safety = _read_safety(top.section('safety'))
    top.finish()
    return arms, cameras, safety, head


def _read_arms(top: Section) -> tuple[ArmProfile, ...]:
    arms: list[ArmProfile] = []
    for section in top.sections('arms'):
        arm = _read_arm(section)
        for other in arms:
            _refuse_shared(section, 'name', arm.name, other.name)
            _refuse_shared(section, 'command_topic', arm.command_topic, other.command_topic)
            for joint in arm.names:
                if joint in other.names:
                    raise section.error(
                        'joints',
                        f'duplicate joint {joint!r}, also in arm {other.name!r}; names must differ',
                    )
        arms.append(arm)
    return tuple(arms)


def _refuse_shared(section: Section, key: str, mine: str, theirs: str) -> None:
    if mine == theirs:
        raise section.error(key, f'duplicate {mine!r}; two arms may not share it')


def _read_arm(section: Section) -> ArmProfile:
    name = section.text('name')
    joints = section.texts('joints')
    gripper = section.section('gripper')
    gripper_joint = gripper.text('joint')
    if gripper_joint in joints:
        raise gripper.error('joint', f'duplicate joint {gripper_joint!r}; it is in joints already')
    maps = {
        key: _read_gripper_map(gripper.section(key)) for key in ('observed', 'action', 'command')
    }
    gripper_velocity = gripper.number('velocity', 1e-6)
    start_gripper = gripper.number('start', 0.0, 1.0)
    gripper.finish()
    lower, upper = _read_position_limits(section.section('position_limits'), joints)
    start = _read_start(section, joints, lower, upper)
    arm = ArmProfile(
        name=name,
        joints=tuple(joints),
        gripper_joint=gripper_joint,
        state_topic=section.text('state_topic'),
        command_topic=section.text('command_topic'),
        adapter=section.choice('adapter', ADAPTERS),
        lower=lower,
        upper=upper,
        velocity=_read_velocity(section.section('velocity_limits'), joints),
        gripper_velocity=gripper_velocity,
        start_pose=(*start, start_gripper),
        **maps,
    )
    section.finish()
    return arm


def _read_gripper_map(section: Section) -> GripperMap:
    result = GripperMap(
        section.number('closed'), section.number('open'), section.choice('unit', _GRIPPER_UNITS)
    )
    if result.closed == result.open:
        raise section.error('open', f'equals closed ({result.closed}); the two must differ')
    section.finish()
    return result


def _read_position_limits(
    section: Section,
    joints: list[str],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    factor = _ANGLE_UNITS[section.choice('unit', tuple(_ANGLE_UNITS))]
    lower, upper = (section.numbers(key, len(joints)) for key in ('lower', 'upper'))
    section.finish()
    for joint, low, high in zip(joints, lower, upper, strict=True):
        if low >= high:
            raise section.error(
                'lower',
                f'joint {joint!r}: lower limit {low} is not below its '
                f'upper limit {high}; swap them',
            )
    return tuple(v * factor for v in lower), tuple(v * factor for v in upper)


def _read_velocity(section: Section, joints: list[str]) -> tuple[float, ...]:
    unit = section.choice('unit', tuple(f'{angle}/s' for angle in _ANGLE_UNITS))
    values = section.numbers('joints', len(joints))
    section.finish()
    for joint, value in zip(joints, values, strict=True):
        if value <= 0.0:
            raise section.error(
                'joints', f'joint {joint!r}: velocity limit {value} must be above 0'
            )
    return tuple(v * _ANGLE_UNITS[unit.removesuffix('/s')] for v in values)


def _read_start(
    section: Section,
    joints: list[str],
    lower: tuple[float, ...],
    upper: tuple[float, ...],
) -> list[float]:
    """Start pose, in rad like everything that has no unit key."""
    start = section.numbers('start_pose', len(joints))
    for joint, value, low, high in zip(joints, start, lower, upper, strict=True):
        if not low <= value <= high:
            raise section.error(
                'start_pose',
                f'joint {joint!r}: {value} rad is outside its limits {low:.4f} to {high:.4f}',
            )
    return start


def _read_cameras(top: Section) -> tuple[CameraProfile, ...]:
    cameras: list[CameraProfile] = []
    for section in top.sections('cameras'):
        camera = CameraProfile(
            section.text('name'),
            section.text('topic'),
            section.choice('type', ('compressed', 'raw')),
            section.number('rate', 0.1, _MAX_RATE),
            section.number('latency', 0.0, 1.0),
        )
        section.finish()
        for other in cameras:
            for key in ('name', 'topic'):
                if getattr(camera, key) == getattr(other, key):
                    raise section.error(
                        key, f'duplicate {getattr(camera, key)!r}; each camera needs its own'
                    )
        cameras.append(camera)
    return tuple(cameras)


def _read_safety(section: Section) -> SafetyProfile:
    values = {field.name: section.number(field.name, 0.0) for field in fields(SafetyProfile)}
    section.finish()
    return SafetyProfile(**values)
