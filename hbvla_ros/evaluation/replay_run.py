# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""From a bag and a policy to the report of their replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hbvla_ros.control.inference import PolicyLike, check_policy
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.latency_traces import Event, LatencySource, LatencyTrace
from hbvla_ros.evaluation.replay import Recorded, Replay, Replayed, ReplaySettings
from hbvla_ros.evaluation.replay_errors import OpenLoopError, error_report, number
from hbvla_ros.evaluation.replay_summary import (
    command_report,
    digests,
    holds,
    inference_report,
    interventions,
    streams,
)
from hbvla_ros.recordings.bag_commands import RecordedCommands, RecordedStates
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.bag_stream import stream
from hbvla_ros.recordings.bag_topics import BagTopics, find_topics
from hbvla_ros.recordings.degradations import Degradation, degrade
from hbvla_ros.recordings.recording import Needs
from hbvla_ros.recordings.rosbag import bag_digest

# What the policy's chunks are compared with.
AGAINST = ('commands', 'poses', 'nothing')


@dataclass(frozen=True)
class ReplayRequest:
    """What is replayed, and how.

    Attributes:
        bag: folder, ``.mcap`` or ``.db3`` file.
        latency: how long inferences take.
        events: single inferences that go another way.
        degradations: faults put into the stream.
        settings: schedule, instruction, and where the arms are taken to be.
        against: one of :data:`AGAINST`.
    """

    bag: Path
    latency: LatencySource
    events: Sequence[Event] = ()
    degradations: Sequence[Degradation] = ()
    settings: ReplaySettings = field(default_factory=ReplaySettings)
    against: str = 'commands'


@dataclass(frozen=True)
class ReplayResult:
    """A replay and its report.

    Attributes:
        report: plain JSON types; the same for the same bag, checkpoint and options.
        replayed: everything that happened.
        recorded: what the bag commanded, None where nothing was compared.
        profile: the robot.
    """

    report: dict[str, Any]
    replayed: Replayed
    recorded: Recorded | None
    profile: RobotProfile


def replay_bag(request: ReplayRequest, policy: PolicyLike, profile: RobotProfile) -> ReplayResult:
    """Replay a bag.

    Raises:
        HbvlaError: the policy is not for this robot, the bag is not readable or lacks a topic, a
            degradation names what the robot does not have, or nothing in the bag makes an
            observation.
    """
    check_policy(policy, profile)
    platform = policy.platform
    needs = Needs(tuple(platform.cameras), platform.proprio_dim, platform.robot)
    with BagFile(request.bag) as bag:
        there = bag.topics
        if not any(topic.messages for topic in there.values()):
            raise HbvlaError(f'{request.bag}: the bag is empty; record it again')
        topics = find_topics(request.bag, there, profile, needs)
        recorded = _recorded(request, bag, topics, profile)
        wanted = dict.fromkeys([*topics.every, *(recorded.topics if recorded else ())])
        messages = degrade(
            stream(bag, list(wanted)), request.degradations, topics, profile, bag.span
        )
        trace = LatencyTrace(request.latency, request.events)
        replay = Replay(policy, profile, topics, trace, request.settings, recorded)
        replayed = replay.run(messages)
        start, _ = bag.span
    if not replayed.inferences and not request.degradations:
        raise HbvlaError(_nothing(request.bag, replayed, topics))
    report = _report(request, policy, profile, replayed, recorded, topics)
    report['bag'] |= {'start': start * 1e-9, 'digest': bag_digest(request.bag)}
    return ReplayResult(report, replayed, recorded, profile)


def _recorded(
    request: ReplayRequest, bag: BagFile, topics: BagTopics, profile: RobotProfile
) -> Recorded | None:
    if request.against == 'commands':
        return RecordedCommands(request.bag, bag.topics, topics, profile)
    return RecordedStates(topics, profile) if request.against == 'poses' else None


def _nothing(bag: Path, replayed: Replayed, topics: BagTopics) -> str:
    """The error of a bag in which no inference could start."""
    reasons = [tick.holding for tick in replayed.ticks if tick.holding]
    if 'no instruction' in reasons:
        said = 'never says what the task is' if topics.instructions else 'has no instruction topic'
        return f'{bag}: {said}; give it with --instruction'
    # The last reason is that the bag is over; the one before it is that of the bag.
    heard = [tick.holding for tick in replayed.ticks if tick.instant.elapsed <= replayed.last]
    return (
        f'{bag}: holds nothing that makes an observation; when it ended: '
        f'{heard[-1] if heard else "its clock had not begun"}; record cameras and joints with '
        'right stamps, in simulation /clock as well'
    )


def _report(
    request: ReplayRequest,
    policy: PolicyLike,
    profile: RobotProfile,
    replayed: Replayed,
    recorded: Recorded | None,
    topics: BagTopics,
) -> dict[str, Any]:
    settings, stage = request.settings, SafetyStage.of(profile)
    error = executed = None
    if recorded is not None:
        chunks = [one.chunk for one in replayed.inferences if one.chunk is not None]
        error = OpenLoopError.of(chunks, recorded.poses)
        executed = _executed(replayed, recorded, len(profile.action_names))
    return {
        'bag': {
            'path': str(request.bag),
            'messages': replayed.messages,
            'seconds': number(replayed.last),
            'simulated_time': topics.simulated,
        },
        'checkpoint': policy.checkpoint,
        'robot': profile.robot,
        'profile': profile.name,
        'settings': {
            'latency': LatencyTrace(request.latency, request.events).describe(),
            'events': [event.describe() for event in request.events],
            'degradations': [one.text for one in request.degradations],
            'replan_fraction': settings.replan_fraction,
            'inference_period_s': settings.inference_period,
            'inference_deadline_s': settings.inference_deadline,
            'hold_on_loss': settings.hold_on_loss,
            'arms': settings.arms,
            'temporal_ensemble': settings.temporal_ensemble,
            'control_rate_hz': profile.control_rate,
        },
        'digests': digests(replayed),
        'inferences': inference_report(replayed),
        'open_loop_error': (
            None if executed is None
            else error_report(error, executed, profile, request.against)
        ),
        'commands': command_report(replayed.ticks, stage, profile),
        'interventions': interventions(replayed.ticks),
        'holds': holds(replayed.ticks),
        'hold_after_last_message_s': (
            None if replayed.hold_after is None else number(replayed.hold_after)
        ),
        'stop': replayed.stop,
        'clock_jumps': replayed.clock_jumps,
        'streams': streams(replayed),
    }  # fmt: skip


def _executed(replayed: Replayed, recorded: Recorded, width: int) -> np.ndarray[Any, Any]:
    """Differences (T, A) of what was sent while a target was followed."""
    running = [t for t in replayed.ticks if t.command is not None and not t.holding]
    if not running:
        return np.full((1, width), np.nan)
    commands = np.array([tick.command for tick in running])
    return np.abs(commands - recorded.poses.at([tick.instant.now for tick in running]))
