# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Faults put into a recorded stream, to see what the nodes' rules make of them.

Each is a transformation of the message stream, applied between the bag and whatever reads it, so
that the faulty messages go through the same code as live ones. What comes of each is stated in
docs/replay.md and tested.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_stream import NANO
from hbvla_ros.recordings.bag_topics import BagTopics
from hbvla_ros.recordings.degradation_kinds import KINDS, Kind, Stream, Window

_SYNTAX = re.compile(
    r'(?P<kind>[a-z-]+)(?::(?P<argument>[^@]+))?'
    r'(?:@(?P<start>[\d.]+)(?:-(?P<stop>[\d.]+))?)?'
)
# A time in ns that no message has.
_NEVER = (1 << 63) - 1


@dataclass(frozen=True)
class Degradation:
    """One fault.

    Attributes:
        text: as the user wrote it.
        kind: one of :data:`KINDS`.
        argument: camera, arm, joint or seconds; empty where none was given.
        start, stop: in force from ``start`` to before ``stop``, s after the bag's first message;
            ``start`` is None where none was given.
    """

    text: str
    kind: str
    argument: str
    start: float | None
    stop: float


def parse_degradation(text: str) -> Degradation:
    """``KIND[:ARGUMENT][@START[-STOP]]``, times in s after the bag's first message.

    Raises:
        HbvlaError: not of this form, an unknown kind, or an argument too many or too few.
    """
    found = _SYNTAX.fullmatch(text)
    if found is None or (found['kind'] not in KINDS):
        raise HbvlaError(
            f'--degrade {text}: write KIND[:ARGUMENT][@START[-STOP]] with a kind of '
            f'{", ".join(KINDS)}'
        )
    kind, argument = KINDS[found['kind']], found['argument'] or ''
    if kind.required and not argument:
        raise HbvlaError(f'--degrade {text}: write {found["kind"]}:{kind.argument}')
    if kind.argument == 'SECONDS' and not _is_number(argument):
        raise HbvlaError(f'--degrade {text}: {argument!r} is no number of seconds')
    try:
        start = None if found['start'] is None else float(found['start'])
        stop = math.inf if found['stop'] is None else float(found['stop'])
    except ValueError:
        raise HbvlaError(f'--degrade {text}: the times after @ are no numbers') from None
    if start is not None and not start < stop:
        raise HbvlaError(f'--degrade {text}: it would end before it starts')
    return Degradation(text, found['kind'], argument, start, stop)


def degrade(
    messages: Stream,
    degradations: Sequence[Degradation],
    topics: BagTopics,
    profile: RobotProfile,
    span: tuple[int, int],
) -> Stream:
    """The stream with all faults in it, the first one nearest to the bag.

    Args:
        messages: what was received.
        degradations: faults.
        topics: which topics are cameras and arms.
        profile: their names.
        span: first and last time of the bag in ns.

    Raises:
        HbvlaError: a camera, arm or joint that the robot does not have.
    """
    for one in degradations:
        kind = KINDS[one.kind]
        default = (span[1] - span[0]) // 2 if kind.in_the_middle else 0
        start = default if one.start is None else round(one.start * NANO)
        stop = _NEVER if one.stop == math.inf else span[0] + round(one.stop * NANO)
        argument, affected = _affected(one, kind, topics, profile)
        messages = kind.apply(messages, Window(argument, affected, span[0] + start, stop))
    return messages


def _affected(
    one: Degradation, kind: Kind, topics: BagTopics, profile: RobotProfile
) -> tuple[str, frozenset[str]]:
    """The argument without the arm before it, and the topics of what it names.

    Without an argument those of every camera or arm. Two arms may have joints of the same names:
    ``ARM/JOINT`` is one of them, ``JOINT`` alone all.
    """
    if kind.argument == 'SECONDS':
        return one.argument, frozenset()
    known: dict[str, set[str]] = {}
    if kind.argument in ('CAMERA', 'STREAM'):
        known |= {camera.name: {topic} for topic, camera in topics.cameras.items()}
    for topic, every in topics.arms.items():
        for arm in (profile.arms[index] for index in every):
            if kind.argument in ('ARM', 'STREAM'):
                known.setdefault(arm.name, set()).add(topic)
            for joint in arm.names if kind.argument == 'JOINT' else ():
                known.setdefault(joint, set()).add(topic)
                known[f'{arm.name}/{joint}'] = {topic}
    if not one.argument:
        return '', frozenset(topic for found in known.values() for topic in found)
    if one.argument not in known:
        there = ', '.join(name for name in known if '/' not in name)
        raise HbvlaError(
            f'--degrade {one.text}: no {kind.argument.lower()} {one.argument!r}; there are {there}'
        )
    return one.argument.rpartition('/')[2], frozenset(known[one.argument])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
