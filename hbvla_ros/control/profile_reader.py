# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From a profile's YAML to its parts, refusing everything that is not exactly right."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from hbvla_ros.control.profile_arms import read_arms
from hbvla_ros.control.profile_types import (
    ENCODINGS,
    STOP_SERVICE_TYPES,
    ArmProfile,
    CameraProfile,
    SafetyProfile,
    StopService,
)
from hbvla_ros.control.strict import Section, read_yaml

FORMAT_VERSION = 2
_NEW_KEYS = (
    'arms[].acceleration_limits, arms[].jerk_limits, arms[].state_latency, '
    'arms[].gripper.adapter, cameras[].encoding, safety.start_mismatch, safety.ramp_velocity, '
    'safety.lag_stop, safety.lag_time, safety.clamp_stop, safety.heartbeat_timeout, '
    'safety.horizon and safety.frozen_timeout'
)
_MAX_RATE = 1000.0
# Of these 0 would stop the arms for good or let them never move.
_ABOVE_ZERO = (
    'ramp_velocity',
    'lag_stop',
    'clamp_stop',
    'heartbeat_timeout',
    'horizon',
    'frozen_timeout',
)
_LEAST = 1e-6
# A controller executes what it was sent also after this process has died.
_MAX_HORIZON = 1.0


class Head(NamedTuple):
    """The profile's own keys, outside arms, cameras and safety."""

    robot: str
    control_rate: float
    joint_state_rate: float


class Parts(NamedTuple):
    """Everything in one profile."""

    head: Head
    arms: tuple[ArmProfile, ...]
    cameras: tuple[CameraProfile, ...]
    safety: SafetyProfile
    stop_services: tuple[StopService, ...]


def read_profile(path: Path) -> Parts:
    """Read and check one profile.

    Raises:
        HbvlaError: the first fault found, naming the file and the key.
    """
    top = read_yaml(path)
    _check_version(top)
    robot = top.text('robot')
    rates = top.section('rates')
    head = Head(
        robot, rates.number('control', 1.0, _MAX_RATE), rates.number('joint_states', 1.0, _MAX_RATE)
    )
    rates.finish()
    arms = read_arms(top)
    cameras = _read_cameras(top)
    safety = _read_safety(top.section('safety'))
    stops = _read_stop_services(top)
    top.finish()
    return Parts(head, arms, cameras, safety, stops)


def _check_version(top: Section) -> None:
    version = top.integer('format_version')
    if version == 1:
        raise top.error(
            'format_version', f'1 is not supported; this is {FORMAT_VERSION}, add {_NEW_KEYS}'
        )
    if version != FORMAT_VERSION:
        raise top.error('format_version', f'{version} is not supported; this is {FORMAT_VERSION}')


def _read_cameras(top: Section) -> tuple[CameraProfile, ...]:
    cameras: list[CameraProfile] = []
    for section in top.sections('cameras'):
        camera = CameraProfile(
            section.text('name'),
            section.text('topic'),
            section.choice('type', ('compressed', 'raw')),
            section.number('rate', 0.1, _MAX_RATE),
            section.number('latency', 0.0, 1.0),
            section.choice('encoding', ENCODINGS),
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
    values = {
        field.name: section.number(field.name, _LEAST if field.name in _ABOVE_ZERO else 0.0)
        for field in fields(SafetyProfile)
    }
    if values['horizon'] > _MAX_HORIZON:
        raise section.error(
            'horizon', f'{values["horizon"]} is above {_MAX_HORIZON} s; nothing ends such a motion'
        )
    section.finish()
    return SafetyProfile(**values)


def _read_stop_services(top: Section) -> tuple[StopService, ...]:
    """Optional: a robot whose driver has no stop of its own has none to call."""
    if not top.has('stop_services'):
        return ()
    services: list[StopService] = []
    for section in top.sections('stop_services', empty=True):
        service = StopService(section.text('name'), section.choice('type', STOP_SERVICE_TYPES))
        section.finish()
        if service.name in [other.name for other in services]:
            raise section.error('name', f'duplicate {service.name!r}; each may appear once')
        services.append(service)
    return tuple(services)
