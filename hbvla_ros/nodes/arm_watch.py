# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What keeps the arm node from moving: reasons to hold that pass, and reasons to stop."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header

from hbvla_ros.control.arm_motion import implausible
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.nodes.adapters import CommandWriter, command_topics
from hbvla_ros.nodes.heartbeat import Heartbeat, HeartbeatWatch, LivedTime
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.writers import WriterWatch

WATCH_RATE = 20.0
# The graph is asked for foreign writers at every so many turns.
_TURNS_PER_LOOK = 4
# A second arm node beats ten times as often.
_TWIN_LASTS = 1.0


class ArmWatch:
    """Looks around on behalf of an arm node, :data:`WATCH_RATE` times a second.

    Args:
        node: the arm node.
        profile: its robot.
        joints: its joint states.
        writer: its commands.
        heart: its own heart.
        require_guard: whether a guard must have been heard.
    """

    def __init__(
        self,
        node: Node,
        profile: RobotProfile,
        joints: JointReader,
        writer: CommandWriter,
        heart: Heartbeat,
        require_guard: bool,
    ) -> None:
        """Subscribe to the hearts of others, and to its own."""
        self._node, self._profile = node, profile
        self._stage, self._joints, self._writer = SafetyStage.of(profile), joints, writer
        self._heart, self._require_guard = heart, require_guard
        self._lived = LivedTime(1.0 / WATCH_RATE)
        timeout = profile.safety.heartbeat_timeout
        self.guard = HeartbeatWatch(node, 'guard_node', timeout, self._lived)
        self.policy = HeartbeatWatch(node, 'policy_node', timeout, self._lived)
        self._writers = WriterWatch(node, command_topics(profile))
        self._turns, self._strange, self._twin = 0, '', -np.inf
        self._subscription = node.create_subscription(Header, '~/heartbeat', self._receive_beat, 5)

    def turn(self) -> None:
        """Let time pass, and now and then look for other writers."""
        self._lived.turn()
        self._turns += 1
        if self._turns % _TURNS_PER_LOOK == 0:
            self.look()

    def look(self) -> None:
        """Look for other writers now."""
        self._strange = self._writers.strange()

    def other_writer(self) -> str:
        """Who else commands the robot, empty if nobody: a reason to stop."""
        if self._lived.now() - self._twin < _TWIN_LASTS:
            return 'a second arm_node is running'
        return self._strange

    def joint_problem(self) -> str:
        """Why the joint states are nothing to execute on, empty while they are."""
        problem = self._joints.problem()
        measured = self._joints.newest()
        if problem or measured is None:
            return problem
        return implausible(self._profile, self._stage, measured)

    def hindrance(self) -> str:
        """Why to hold now, empty if nothing speaks against moving; it passes by itself."""
        problem = self.joint_problem() or self._writer.problem()
        if problem:
            return problem
        if self.guard.is_silent:
            return f'guard_node is silent for {self.guard.age():.2f} s'
        if self._require_guard and not self.guard.is_heard:
            return 'no guard_node is heard, and require_guard is set'
        if self.guard.hold:
            return f'guard_node: {self.guard.hold}'
        if self.policy.is_silent and self.policy.was_active:
            return f'policy_node is silent for {self.policy.age():.2f} s'
        return ''

    def values(self) -> dict[str, object]:
        """What it sees, for a report."""
        return {
            'guard_node': self.guard.state or 'not heard',
            'guard_node silent': self.guard.age(),
            'policy_node': self.policy.state or 'not heard',
            'policy_node silent': self.policy.age(),
            'other writer': self.other_writer(),
        }

    def _receive_beat(self, message: Header) -> None:
        if not self._heart.is_own(message):
            self._twin = self._lived.now()

    def destroy(self) -> None:
        """Remove the subscriptions."""
        self.guard.destroy()
        self.policy.destroy()
        self._node.destroy_subscription(self._subscription)
