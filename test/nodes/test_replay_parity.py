# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The nodes' own readers, fed message by message, see at each inference what the replay saw."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState

from hbvla_ros.control.inference import Request, infer
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk
from hbvla_ros.evaluation.latency_traces import LatencyTrace, parse_latency
from hbvla_ros.evaluation.replay import Replay, ReplaySettings
from hbvla_ros.evaluation.replay_policy import observation_digest
from hbvla_ros.nodes import joint_reader
from hbvla_ros.nodes.conversions import decode_image, to_seconds
from hbvla_ros.nodes.frames import FrameReader
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.bag_stream import stream
from hbvla_ros.recordings.bag_topics import find_topics
from hbvla_ros.recordings.degradations import degrade, parse_degradation
from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture
from hbvla_ros.recordings.message_types import message_types
from hbvla_ros.recordings.recording import Needs
from hbvla_ros.vla.platform import ALOHA

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = tuple(camera.name for camera in PROFILE.cameras)
KINDS = {kind.__name__: kind for kind in (Clock, CompressedImage, JointState)}


class Witness:
    """Stands in for the network: notes what it is given, and when, and stands still.

    ``heard`` counts the messages that have come when it is asked.
    """

    checkpoint = 'witness'
    platform = dataclasses.replace(ALOHA, robot='aloha_sim', cameras=CAMERAS, chunk=10)

    def __init__(self):
        self.digests, self.heard, self.asked_at = [], 0, []

    def counted(self, messages):
        for message in messages:
            self.heard += 1
            yield message

    def act(self, observation):
        self.digests.append(observation_digest(observation))
        self.asked_at.append(self.heard)
        rows = np.tile(observation.proprioception, (10, 1))
        return ActionChunk(rows, observation.stamp, 0.04, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip

    def warmup(self):
        pass


class StubNode:
    """Keeps the callbacks of a reader's subscriptions by topic, and the clocks it is given."""

    def __init__(self, simulated):
        self.callbacks = {}
        self.nanoseconds, self.ros_time_is_active, self.monotonic = 0, simulated, 0.0

    def create_subscription(self, _kind, topic, callback, _quality):
        self.callbacks[f'/{topic}'] = callback

    def get_clock(self):
        return self

    def now(self):
        return self

    def get_logger(self):
        return self

    def error(self, _text, throttle_duration_sec=0.0):
        """Nothing is logged."""


def messages_of(bag, faults):
    with BagFile(bag) as file:
        topics = find_topics(bag, file.topics, PROFILE, Needs(CAMERAS, 14, 'aloha_sim'))
        faults = [parse_degradation(text) for text in faults]
        messages = degrade(stream(file, topics.every), faults, topics, PROFILE, file.span)
        return topics, list(messages)


def live(message):
    """The message as rclpy gives it to a callback."""
    kind = message.content.__msgtype__
    data = message_types().serialize_cdr(message.content, kind)
    return deserialize_message(bytes(data), KINDS[kind.rpartition('/')[2]])


@pytest.mark.parametrize('simulated', [False, True])
@pytest.mark.parametrize(
    'faults',
    [
        [], ['drop-camera:cam_high@0.3-0.6'], ['nan-joint:left_elbow@0.4-0.5'],
        ['out-of-order'], ['clock-step:-0.05@0.5'], ['reorder-joints', 'duplicate'],
    ],
    ids=' '.join,
)  # fmt: skip
def test_live_readers_see_what_the_replay_saw(tmp_path, monkeypatch, faults, simulated):
    write_fixture(tmp_path / 'bag', PROFILE, FixtureOptions(seconds=1.0, simulated=simulated))
    topics, messages = messages_of(tmp_path / 'bag', faults)
    policy = Witness()
    settings = ReplaySettings(replan_fraction=0.2, instruction='go')
    trace = LatencyTrace(parse_latency('0.03', 0))
    replayed = Replay(policy, PROFILE, topics, trace, settings).run(policy.counted(messages))
    # Those that started while the bag lasted.
    inferences = [one for one in replayed.inferences if one.started.elapsed <= replayed.last]
    assert len(inferences) >= 6

    node, seen, witness, next_one = StubNode(simulated), -np.inf, Witness(), 0
    monkeypatch.setattr(joint_reader, 'time', SimpleNamespace(monotonic=lambda: node.monotonic))
    joints = JointReader(node, PROFILE)
    frames = FrameReader(node, PROFILE, PROFILE.cameras, joints, lambda: None)
    for inference, asked_at in zip(inferences, policy.asked_at, strict=False):
        started = inference.started
        # A reply that comes before a message lets an inference start that does not know it yet.
        early = messages[asked_at - 1].received * 1e-9 > started.received
        for message in messages[next_one : asked_at - early]:
            node.monotonic = message.received * 1e-9
            node.nanoseconds = node.nanoseconds if simulated else message.clock
            if message.topic == '/clock':
                node.nanoseconds = round(to_seconds(live(message).clock) * 1e9)
            elif message.topic in node.callbacks:
                node.callbacks[message.topic](live(message))
        next_one = asked_at - early
        node.monotonic, node.nanoseconds = started.received, round(started.now * 1e9)
        aligned, problem = frames.observation(lambda stamp, last=seen: stamp > last)
        assert aligned is not None, problem
        assert {name: frame.stamp for name, frame in aligned.frames.items()} == inference.stamps
        # The schedule forgets what was seen when the clock goes back.
        stepped = any('clock-step' in text for text in faults) and started.elapsed > 0.4
        seen = -np.inf if stepped else aligned.stamp
        request = Request(aligned, PROFILE.cameras, inference.instruction)
        infer(witness, PROFILE, request, decode_image)
        assert witness.digests[-1] == inference.observation
