# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""All arms' commands onto the wire: every message is built before the first is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from rclpy.node import Node

from hbvla_ros.control.profile import ArmProfile, RobotProfile
from hbvla_ros.nodes.adapters.base import CommandAdapter, Motion, Vector
from hbvla_ros.nodes.adapters.gripper import Hysteresis, ParallelGripper
from hbvla_ros.nodes.adapters.interbotix import JointGroupCommand, JointSingleCommand
from hbvla_ros.nodes.adapters.streams import ForwardCommand, JointStateCommand
from hbvla_ros.nodes.adapters.trajectory import JointTrajectoryCommand, Renewal

Send = Callable[[], None]

_KINDS: dict[str, type[CommandAdapter]] = {
    'forward_command': ForwardCommand,
    'joint_state': JointStateCommand,
    'joint_trajectory': JointTrajectoryCommand,
    'interbotix': JointGroupCommand,
}


def make_adapter(arm: ArmProfile) -> CommandAdapter:
    """The adapter an arm's profile asks for.

    Raises:
        HbvlaError: it needs messages that are not installed.
    """
    return _KINDS[arm.adapter](arm)


class Output(Protocol):
    """One wire of one arm.

    Attributes:
        looks_ahead: whether it is sent only when a trajectory is to be renewed.
    """

    looks_ahead: bool

    def prepare(self, motion: Motion) -> Send | None:
        """Build what is to be sent and return the call that sends it, None for nothing."""

    def problem(self) -> str:
        """Why it cannot be commanded at present, empty while it can."""

    def destroy(self) -> None:
        """Remove what it has in the node."""


class TopicOutput:
    """An arm's own command topic."""

    def __init__(self, node: Node, arm: ArmProfile) -> None:
        """Make the publisher: reliable, and only the newest command counts."""
        self._adapter = make_adapter(arm)
        self.looks_ahead = isinstance(self._adapter, JointTrajectoryCommand)
        self._node = node
        self._publisher = node.create_publisher(self._adapter.message_type, arm.command_topic, 1)

    def prepare(self, motion: Motion) -> Send | None:
        """See :class:`Output`."""
        return partial(self._publisher.publish, self._adapter.build_motion(motion))

    def problem(self) -> str:
        """Nothing: a topic takes whatever is published."""
        return ''

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_publisher(self._publisher)


class SingleOutput:
    """A gripper's own topic: the opening in force, in every control period."""

    looks_ahead = False

    def __init__(self, node: Node, arm: ArmProfile) -> None:
        """Make the publisher."""
        self._command, self._node = JointSingleCommand(arm), node
        self._hysteresis = Hysteresis(arm.gripper_hysteresis)
        self._publisher = node.create_publisher(
            self._command.message_type, arm.gripper_command_topic, 1
        )

    def prepare(self, motion: Motion) -> Send | None:
        """See :class:`Output`."""
        ratio = self._hysteresis.latest(float(motion.poses[0][-1]))
        return partial(self._publisher.publish, self._command.build(ratio))

    def problem(self) -> str:
        """Nothing: a topic takes whatever is published."""
        return ''

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_publisher(self._publisher)


_GRIPPERS: dict[str, Callable[[Node, ArmProfile], Output]] = {
    'interbotix_single': SingleOutput,
    'parallel_gripper_action': ParallelGripper,
}


class CommandWriter:
    """Commands of one robot on behalf of a node.

    Args:
        node: owns publishers and clients.
        profile: the robot.

    Raises:
        HbvlaError: an adapter needs messages that are not installed.
    """

    def __init__(self, node: Node, profile: RobotProfile) -> None:
        """Make every publisher now: later, a hold would wait for discovery."""
        self._profile, self._period = profile, 1.0 / profile.control_rate
        self._outputs: list[list[Output]] = []
        for arm in profile.arms:
            self._outputs.append([TopicOutput(node, arm)])
            if arm.gripper_adapter != 'arm':
                self._outputs[-1].append(_GRIPPERS[arm.gripper_adapter](node, arm))
        self._all = [output for outputs in self._outputs for output in outputs]
        self._looks_ahead = any(output.looks_ahead for output in self._all)
        self._renewal = Renewal()

    def problem(self) -> str:
        """Why the robot cannot be commanded at present, empty while it can."""
        return next(filter(None, (output.problem() for output in self._all)), '')

    def send(
        self, command: Vector, now: float, holding: bool, ahead: Callable[[], tuple[Vector, int]]
    ) -> None:
        """Send one command to all arms, or to none if one of the messages cannot be built.

        Args:
            command: pose (A,) that the safety stage let through.
            now: time in s on the node's clock.
            holding: whether it is a hold.
            ahead: gives the commands (K, A) that would follow, one a control period, and how many
                of them follow targets; asked only where a trajectory is to be renewed.
        """
        motion = Motion(now, self._period, command[np.newaxis], holding)
        due = self._looks_ahead and self._renewal.is_due(motion)
        followed = 0
        if due:
            poses, followed = ahead()
            motion = Motion(now, self._period, np.vstack([command, poses]), holding)
        sends = []
        parts = self._profile.split(motion.poses.T)
        for part, outputs in zip(parts, self._outputs, strict=True):
            arm_motion = Motion(now, self._period, part.T, holding)
            sends += [o.prepare(arm_motion) for o in outputs if due or not o.looks_ahead]
        for send in sends:
            if send is not None:
                send()
        if due:
            self._renewal.sent(motion, followed)

    def destroy(self) -> None:
        """Remove everything from the node."""
        for output in self._all:
            output.destroy()
        self._all, self._outputs = [], []
