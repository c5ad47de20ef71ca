# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""joint_trajectory_controller: short stamped trajectories.

On Humble and Jazzy the controller replaces a trajectory by the next one and samples it by the
clock: points that are past make it jump. So every point sent lies ahead, on the same timeline as
the message before it. A controller whose commander dies runs to the last point and rests there,
for its velocity is zero, and it is never further ahead than the profile's horizon.
"""

from __future__ import annotations

from array import array

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters.base import CommandAdapter, Motion, Vector, by_name
from hbvla_ros.nodes.conversions import to_duration, to_time

# A single pose is to be reached after this, s: many periods of a controller, and soon for a hold.
_LEAD = 0.1
# A trajectory is renewed when half of what follows targets in it has been used up; a hold, which
# has nothing of that kind, in every so many periods: a single message may be lost.
_HOLD_ROWS = 4
# A command so far from where the controller is by now, rad or ratio, does not wait for that.
_TOLERANCE = 2e-3
# Steps this small are none: rounding of positions that were meant to be equal.
_EQUAL = 1e-9


class JointTrajectoryCommand(CommandAdapter):
    """Trajectories with a position and a velocity in each point."""

    message_type = JointTrajectory

    def build(self, pose: Vector, stamp: float) -> JointTrajectory:
        """One point without velocity, shortly after ``stamp``."""
        return self.build_motion(Motion(stamp, _LEAD, np.array([pose, pose]), True))

    def build_motion(self, motion: Motion) -> JointTrajectory:
        """A point for each pose that is still ahead; one alone where nothing moves.

        Raises:
            HbvlaError: no pose lies ahead; an empty trajectory would not stop a controller.
        """
        positions = self.raw(motion.poses)
        if len(positions) < 2:
            raise HbvlaError(f'{self.arm.command_topic}: a trajectory needs a pose that lies ahead')
        # The poses after the arm has come to rest say nothing new.
        moving = np.flatnonzero((np.abs(np.diff(positions, axis=0)) > _EQUAL).any(axis=1))
        positions = positions[: max(moving[-1] + 2 if len(moving) else 0, 2)]
        velocities = knot_velocities(positions, motion.period)
        message = JointTrajectory(joint_names=list(self.names))
        message.header.stamp = to_time(motion.now)
        message.points = [
            JointTrajectoryPoint(
                positions=array('d', positions[index].tolist()),
                velocities=array('d', velocities[index].tolist()),
                time_from_start=to_duration(index * motion.period),
            )
            for index in range(1, len(positions))
        ]
        return message

    def values(self, message: JointTrajectory) -> Vector:
        """Where the trajectory ends, by name; every joint must be there."""
        topic = self.arm.command_topic
        if not message.points:
            raise HbvlaError(f'{topic}: trajectory without points')
        return by_name(topic, self.names, message.joint_names, message.points[-1].positions)


def knot_velocities(positions: Vector, period: float) -> Vector:
    """Velocities (K, n) for a controller's cubic through positions (K, n), ``period`` s apart.

    Central differences, the last zero. Where the motion turns or rests the velocity is zero, and
    nowhere more than three times the slower neighbour's, so that the cubic between two knots
    never leaves the interval between them: limits that hold for the knots hold for the way.
    """
    steps = np.diff(positions, axis=0) / period
    velocities = np.zeros_like(positions)
    before, after = steps[:-1], steps[1:]
    slower = np.minimum(np.abs(before), np.abs(after))
    central = (before + after) / 2
    velocities[1:-1] = np.where(
        before * after > 0.0, np.clip(central, -3.0 * slower, 3.0 * slower), 0.0
    )
    return velocities


class Renewal:
    """When a trajectory that was sent is to be replaced by a newer one."""

    def __init__(self) -> None:
        """Nothing has been sent."""
        self._sent: Motion | None = None
        self._rows = 0

    def is_due(self, motion: Motion) -> bool:
        """Whether what was sent has been used up, or is no longer the way to this command.

        Args:
            motion: the command now, its first row, of all arms (A,).
        """
        sent = self._sent
        if sent is None or sent.holding != motion.holding:
            return True
        elapsed = motion.now - sent.now
        # Half a period: ticks are never on time to the last digit.
        if not 0.0 <= elapsed < (self._rows - 0.5) * motion.period:
            return True
        rows = np.arange(len(sent.poses)) * sent.period
        planned = np.array([np.interp(elapsed, rows, joint) for joint in sent.poses.T])
        return bool((np.abs(planned - motion.poses[0]) > _TOLERANCE).any())

    def sent(self, motion: Motion, followed: int) -> None:
        """Remember what the controllers were sent.

        Args:
            motion: poses (K, A), the first that of the tick.
            followed: how many of the others follow targets.
        """
        self._sent = motion
        self._rows = _HOLD_ROWS if motion.holding else max(followed // 2, 1)
