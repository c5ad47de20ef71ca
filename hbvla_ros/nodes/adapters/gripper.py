# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Grippers that have an action of their own: a goal when the wanted opening changes, not before.

The controller behind such an action gives up its goal for every new one, so a goal in every
control period would never be finished.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionClient
from rclpy.node import Node
from sensor_msgs.msg import JointState

from hbvla_ros.control.profile import ArmProfile
from hbvla_ros.nodes.adapters.base import Motion, optional_type

_WHERE = 'install ros-$ROS_DISTRO-control-msgs, 5 or newer'
# A goal that was refused is offered again after so long, s.
_PATIENCE = 1.0


class Hysteresis:
    """Lets an opening through when it has moved far enough from the last that was let through.

    Args:
        band: ratio of full travel; fully open and fully closed pass always.
    """

    def __init__(self, band: float) -> None:
        """Nothing has passed yet."""
        self._band = band
        self.passed: float | None = None

    def passes(self, ratio: float) -> bool:
        """Whether an opening 0 .. 1 is news."""
        if self.passed is None:
            return True
        moved = abs(ratio - self.passed)
        # Without this a gripper that was closed slowly would stay open by the band's width.
        return moved > self._band or (moved > 0.0 and ratio in (0.0, 1.0))

    def latest(self, ratio: float) -> float:
        """The opening in force once ``ratio`` has been offered."""
        if self.passes(ratio) or self.passed is None:
            self.passed = ratio
        return self.passed


class ParallelGripper:
    """``control_msgs/ParallelGripperCommand``: goals of one gripper.

    A gripper keeps its last goal by itself, also when whoever gave it dies. So a hold sends
    nothing before the first goal: a grasp made by another program stays closed.
    """

    looks_ahead = False

    def __init__(self, node: Node, arm: ArmProfile) -> None:
        """Make the action client.

        Raises:
            HbvlaError: control_msgs is not installed or too old.
        """
        self._type = optional_type(
            'parallel_gripper_action', 'control_msgs', 'action', 'ParallelGripperCommand', _WHERE
        )
        self._node, self._arm = node, arm
        self._client = ActionClient(node, self._type, arm.gripper_command_topic)
        self._hysteresis = Hysteresis(arm.gripper_hysteresis)
        self._refused_at: float | None = None

    def prepare(self, motion: Motion) -> Callable[[], None] | None:
        """The call that sends a goal, None when there is nothing new."""
        ratio = float(motion.poses[0][-1])
        if motion.holding and self._hysteresis.passed is None:
            return None
        if self.problem() or not self._hysteresis.passes(ratio):
            return None
        goal = self._type.Goal()
        goal.command = JointState(
            name=[self._arm.gripper_command_name],
            position=array('d', [float(self._arm.command.from_ratio(ratio))]),
        )
        return lambda: self._send(goal, ratio)

    def problem(self) -> str:
        """Why no goal can be sent, empty while they can."""
        topic = self._arm.gripper_command_topic
        if not self._client.server_is_ready():
            return f'no action server {topic}'
        if self._refused_at is not None and time.monotonic() - self._refused_at < _PATIENCE:
            return f'{topic} refuses goals'
        return ''

    def destroy(self) -> None:
        """Remove the client."""
        self._client.destroy()

    def _send(self, goal: Any, ratio: float) -> None:
        self._hysteresis.passed = ratio
        self._refused_at = None
        self._client.send_goal_async(goal).add_done_callback(self._receive_answer)

    def _receive_answer(self, future: Any) -> None:
        if future.cancelled() or future.exception() is not None or future.result().accepted:
            return
        # Not in force, so it counts as never sent.
        self._hysteresis.passed = None
        self._refused_at = time.monotonic()
        self._node.get_logger().error(
            f'{self._arm.gripper_command_topic} refused a goal', throttle_duration_sec=1.0
        )
