# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Policies that do as they are told, and the policy node with one of them."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.vla.platform import ALOHA

PROFILE = RobotProfile.load('aloha_sim')
# Of a small policy for the fake robot.
PLATFORM = dataclasses.replace(
    ALOHA, robot='aloha_sim', cameras=tuple(c.name for c in PROFILE.cameras), chunk=10
)


class ScriptedPolicy:
    """Stands in for the network: says to stay where the proprioception is, and remembers."""

    def __init__(self, name='scripted-0000', **changes):
        self.checkpoint = name
        self.platform = dataclasses.replace(PLATFORM, **changes)
        self.observations = []
        self.threads = set()
        self.delay, self.spend = 0.0, time.sleep
        self.alter = lambda rows: rows
        self.release = threading.Event()
        self.release.set()

    def warmup(self):
        self.threads.add(threading.current_thread().name)

    def act(self, observation):
        self.threads.add(threading.current_thread().name)
        self.observations.append(observation)
        self.spend(self.delay)
        self.release.wait(600.0)
        rows = self.alter(np.tile(observation.proprioception, (self.platform.chunk, 1)))
        return ActionChunk(rows, observation.stamp, self.platform.step, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip


@pytest.fixture
def scripted():
    """Makes policies that do as they are told."""
    return ScriptedPolicy


@pytest.fixture
def policy():
    return ScriptedPolicy()


@pytest.fixture
def instruct(robot, wait):
    """Sends the policy node an instruction."""
    publisher = robot.create_publisher(String, 'policy_node/instruction', 5)

    def send(text):
        assert wait(lambda: publisher.get_subscription_count() >= 1)
        publisher.publish(String(data=text))

    return send


@pytest.fixture
def start(graph, robot, policy):
    """Starts a policy node with the scripted policy; parameters are its own."""

    def make(**parameters):
        node = graph.add(PolicyNode, lambda values: policy, diagnostics_rate=10.0, **parameters)
        node.start()
        return node

    return make


@pytest.fixture
def errors(robot):
    """Gives the lines of the errors that the policy node has reported so far."""

    def messages():
        return [
            status.message
            for status in list(robot.reports)
            if status.name.endswith('policy_node') and status.level == DiagnosticStatus.ERROR
        ]

    return messages
