# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The arms of a profile's YAML: joints, topics, grippers and limits."""

from __future__ import annotations

import math
from typing import Any

from hbvla_ros.control.profile_types import ADAPTERS, GRIPPER_ADAPTERS, ArmProfile, GripperMap
from hbvla_ros.control.strict import Section

_ANGLE_UNITS = {'rad': 1.0, 'deg': math.pi / 180.0}
_GRIPPER_UNITS = ('rad', 'deg', 'm', 'ratio', 'raw')
_GRIPPER_COMMAND_KEYS = ('command_topic', 'command_name', 'hysteresis')
# Derivative of the position to what follows ``rad`` or ``deg`` in its unit.
_LIMITS = {'velocity': '/s', 'acceleration': '/s^2', 'jerk': '/s^3'}
_LEAST = 1e-6  # what counts as above 0


def read_arms(top: Section) -> tuple[ArmProfile, ...]:
    """Read ``arms``: at least one, each complete, none in the way of another.

    Raises:
        HbvlaError: the first fault found, naming the file and the key.
    """
    arms: list[ArmProfile] = []
    for section in top.sections('arms'):
        arm = _read_arm(section)
        for other in arms:
            _refuse_shared(section, arm, other)
        arms.append(arm)
        _refuse_loop(section, arms)
    return tuple(arms)


def _refuse_shared(section: Section, arm: ArmProfile, other: ArmProfile) -> None:
    """Names and command topics are of one arm; joint names only where both share a topic."""
    if arm.name == other.name:
        raise section.error('name', f'duplicate {arm.name!r}; two arms may not share it')
    for key, topic in _commands(arm).items():
        if topic in _commands(other).values():
            raise section.error(key, f'duplicate {topic!r}; two arms may not share it')
    shared = [joint for joint in arm.names if joint in other.names]
    if shared and arm.state_topic == other.state_topic:
        raise section.error(
            'joints',
            f'duplicate joint {shared[0]!r}, also in arm {other.name!r} on the same state_topic; '
            'names must differ',
        )


def _refuse_loop(section: Section, arms: list[ArmProfile]) -> None:
    """A command that is read back as a measurement would hide everything the arm does."""
    states = {arm.state_topic for arm in arms}
    commands = {topic for arm in arms for topic in _commands(arm).values()}
    for key, topic in {**_commands(arms[-1]), 'state_topic': arms[-1].state_topic}.items():
        if topic in states and topic in commands:
            raise section.error(key, f'{topic!r} has both states and commands; keep them apart')


def _commands(arm: ArmProfile) -> dict[str, str]:
    """Keys to topics that the arm is commanded by."""
    topics = {'command_topic': arm.command_topic}
    if arm.gripper_command_topic:
        topics['gripper.command_topic'] = arm.gripper_command_topic
    return topics


def _read_arm(section: Section) -> ArmProfile:
    name, joints = section.text('name'), section.texts('joints')
    gripper, start_gripper = _read_gripper(section.section('gripper'), joints)
    lower, upper = _read_position_limits(section.section('position_limits'), joints)
    limits: dict[str, Any] = {kind: _read_limits(section, kind, joints) for kind in _LIMITS}
    start = _read_start(section, joints, lower, upper)
    adapter = section.choice('adapter', ADAPTERS)
    arm = ArmProfile(
        name=name,
        joints=tuple(joints),
        state_topic=section.text('state_topic'),
        command_topic=section.text('command_topic'),
        adapter=adapter,
        group=_read_group(section, adapter),
        state_latency=section.number('state_latency', 0.0, 1.0),
        lower=lower,
        upper=upper,
        start_pose=(*start, start_gripper),
        **limits,
        **gripper,
    )
    section.finish()
    if arm.gripper_command_topic == arm.command_topic:
        raise section.error('gripper.command_topic', f'duplicate {arm.command_topic!r} of the arm')
    return arm


def _read_group(section: Section, adapter: str) -> str:
    if adapter == 'interbotix':
        return section.text('group')
    if section.has('group'):
        raise section.error('group', f'has no meaning for adapter {adapter!r}; remove it')
    return ''


def _read_gripper(section: Section, joints: list[str]) -> tuple[dict[str, Any], float]:
    """The gripper's fields of the arm, and its part of the start pose."""
    joint = section.text('joint')
    if joint in joints:
        raise section.error('joint', f'duplicate joint {joint!r}; it is in joints already')
    adapter = section.choice('adapter', GRIPPER_ADAPTERS)
    fields: dict[str, Any] = {'gripper_joint': joint, 'gripper_adapter': adapter}
    if adapter == 'arm':
        for key in filter(section.has, _GRIPPER_COMMAND_KEYS):
            raise section.error(key, "has no meaning for adapter 'arm'; remove it")
        fields |= {'gripper_command_topic': '', 'gripper_command_name': ''}
        fields['gripper_hysteresis'] = 0.0
    else:
        fields['gripper_command_topic'] = section.text('command_topic')
        fields['gripper_command_name'] = section.text('command_name')
        fields['gripper_hysteresis'] = section.number('hysteresis', 0.0, 0.5)
    for key in ('observed', 'action', 'command'):
        fields[key] = _read_gripper_map(section.section(key))
    fields['gripper_velocity'] = section.number('velocity', _LEAST)
    start = section.number('start', 0.0, 1.0)
    section.finish()
    return fields, start


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


def _read_limits(top: Section, kind: str, joints: list[str]) -> tuple[float, ...]:
    """Limits of one derivative of the position, in rad/s and its powers."""
    section, suffix = top.section(f'{kind}_limits'), _LIMITS[kind]
    unit = section.choice('unit', tuple(f'{angle}{suffix}' for angle in _ANGLE_UNITS))
    values = section.numbers('joints', len(joints))
    section.finish()
    for joint, value in zip(joints, values, strict=True):
        if value <= 0.0:
            raise section.error('joints', f'joint {joint!r}: {kind} limit {value} must be above 0')
    return tuple(v * _ANGLE_UNITS[unit.removesuffix(suffix)] for v in values)


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
