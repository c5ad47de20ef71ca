# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The real policy node with a policy that only swings the arms, and fails when it is told to."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import numpy as np

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.data import ActionChunk, Observation
from hbvla_ros.nodes.faults import request
from hbvla_ros.nodes.policy_node import NAME, PolicyNode
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.recordings.fixture import Motion
from hbvla_ros.vla.platform import ALOHA, Platform

# What a small network takes, s.
_LATENCY = 0.1
# Of the waist of the left arm when the policy is to leave the limits, rad.
_FAR = 10.0


class SwingingPolicy:
    """Chunks of one smooth motion that depends on the time alone.

    Chunks of different times agree where they overlap, so that what moves the arms otherwise is
    the nodes' doing.

    Args:
        profile: the robot.
    """

    checkpoint = 'swinging'

    def __init__(self, profile: RobotProfile) -> None:
        """No faults yet."""
        self._profile, self._motion = profile, Motion(profile, 0)
        self.platform: Platform = dataclasses.replace(
            ALOHA,
            robot=profile.robot,
            cameras=tuple(camera.name for camera in profile.cameras),
            action_dim=len(profile.action_names),
            proprio_dim=len(profile.action_names),
        )
        self._faults: dict[str, Any] = {}
        self._free = threading.Event()
        self._free.set()

    def take(self, faults: dict[str, Any]) -> None:
        """Have these faults from now on."""
        self._faults = faults
        if request.HANG in faults:
            self._free.clear()
        else:
            self._free.set()

    def warmup(self) -> None:
        """Nothing to warm up."""

    def act(self, observation: Observation) -> ActionChunk:
        """One second of the motion, or what the present faults make of it."""
        faults, step = self._faults, self.platform.step
        time.sleep(float(faults.get(request.SPIKE, _LATENCY)))
        self._free.wait()
        times = observation.stamp + step * np.arange(self.platform.chunk)
        rows = self._profile.pose_to_action(np.array([self._motion.at(t) for t in times]))
        if request.BAD_ACTION in faults:
            rows[len(rows) // 2, 0] = float(faults[request.BAD_ACTION])
        if request.OUTSIDE in faults:
            rows[:, 0] = _FAR
        return ActionChunk(
            rows, observation.stamp, step, observation.stamp, observation.instruction,
            self.checkpoint,
        )  # fmt: skip


def make_node() -> PolicyNode:
    """The policy node, which listens for faults besides."""
    made: list[SwingingPolicy] = []
    faults: list[dict[str, Any]] = [{}]

    def make_policy(values: Any) -> SwingingPolicy:
        policy = SwingingPolicy(RobotProfile.load(values['robot']))
        policy.take(faults[0])
        made.append(policy)
        return policy

    def receive(asked: dict[str, Any]) -> None:
        faults[0] = asked
        for policy in made:
            policy.take(asked)

    node = PolicyNode(make_policy)
    request.listen(node, receive)
    return node


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, make_node)


if __name__ == '__main__':
    main()
