# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Trajectories that a controller is sent: where their points lie, and when a new one is due."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters import JointTrajectoryCommand, Motion
from hbvla_ros.nodes.adapters.trajectory import Renewal, knot_velocities
from hbvla_ros.nodes.conversions import to_seconds

SIM = RobotProfile.load('aloha_sim')
PERIOD = 0.04


def robot(**changes):
    """The simulated robot with arms of another kind."""
    return dataclasses.replace(
        SIM, arms=tuple(dataclasses.replace(arm, **changes) for arm in SIM.arms)
    )


def cubic(message, at):
    """Where a controller that fits cubics between points is ``at`` s, between first and last."""
    times = [to_seconds(point.time_from_start) for point in message.points]
    index = min(max(int(np.searchsorted(times, at)) - 1, 0), len(times) - 2)
    a, b = message.points[index], message.points[index + 1]
    width = times[index + 1] - times[index]
    s = np.clip((at - times[index]) / width, 0.0, 1.0)
    return (
        (2 * s**3 - 3 * s**2 + 1) * np.array(a.positions)
        + (s**3 - 2 * s**2 + s) * width * np.array(a.velocities)
        + (3 * s**2 - 2 * s**3) * np.array(b.positions)
        + (s**3 - s**2) * width * np.array(b.velocities)
    )


class TestTrajectories:
    arm = robot(adapter='joint_trajectory').arms[0]

    def motion(self, rows, holding=False):
        return Motion(100.0, PERIOD, np.asarray(rows, dtype=np.float64), holding)

    def ramp(self, rows):
        poses = np.tile(np.array(self.arm.start_pose), (rows, 1))
        poses[:, 0] += 0.02 * np.arange(rows)
        return poses

    def test_every_point_lies_ahead_and_the_last_is_at_rest(self):
        message = JointTrajectoryCommand(self.arm).build_motion(self.motion(self.ramp(11)))
        times = [to_seconds(point.time_from_start) for point in message.points]
        assert to_seconds(message.header.stamp) == pytest.approx(100.0)
        np.testing.assert_allclose(times, PERIOD * np.arange(1, 11))
        assert message.joint_names == list(self.arm.names)
        np.testing.assert_allclose(
            [p.positions[0] for p in message.points], 0.02 * np.arange(1, 11)
        )
        speeds = np.array([p.velocities[0] for p in message.points])
        np.testing.assert_allclose(speeds[:-1], 0.02 / PERIOD)
        assert (np.array(message.points[-1].velocities) == 0.0).all()

    def test_a_hold_is_one_point_at_rest_in_the_future(self):
        hold = np.tile(np.array(self.arm.start_pose), (11, 1))
        message = JointTrajectoryCommand(self.arm).build_motion(self.motion(hold, True))
        (point,) = message.points
        assert to_seconds(point.time_from_start) == pytest.approx(PERIOD)
        assert list(point.velocities) == [0.0] * 7
        np.testing.assert_allclose(point.positions[:6], self.arm.start_pose[:6])

    def test_what_comes_after_the_rest_is_left_out(self):
        rows = self.ramp(11)
        rows[4:] = rows[4]
        message = JointTrajectoryCommand(self.arm).build_motion(self.motion(rows))
        assert len(message.points) == 4 and message.points[-1].velocities[0] == 0.0

    def test_a_trajectory_is_never_empty(self):
        adapter = JointTrajectoryCommand(self.arm)
        with pytest.raises(HbvlaError, match='needs a pose that lies ahead'):
            adapter.build_motion(self.motion(self.ramp(1)))
        with pytest.raises(HbvlaError, match='left/commands: trajectory without points'):
            adapter.parse(JointTrajectory(joint_names=list(self.arm.names)))

    def test_the_gripper_is_in_the_drivers_unit_and_where_it_ends_is_read_back(self):
        adapter, rows = JointTrajectoryCommand(self.arm), self.ramp(5)
        rows[:, -1] = [1.0, 0.75, 0.5, 0.25, 0.0]
        message = adapter.build_motion(self.motion(rows))
        assert message.points[-1].positions[-1] == pytest.approx(self.arm.command.closed)
        np.testing.assert_allclose(adapter.parse(message), rows[-1], atol=1e-12)
        message.joint_names[2] = 'other'
        with pytest.raises(HbvlaError, match="joint 'left_elbow' is missing"):
            adapter.parse(message)

    @given(
        st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=12),
        st.floats(0.0, 1.0),
    )
    def test_between_two_points_the_way_stays_between_them(self, positions, share):
        knots = np.array(positions)[:, np.newaxis]
        velocities = knot_velocities(knots, PERIOD)
        assert velocities[-1, 0] == 0.0
        for index in range(len(knots) - 1):
            part = JointTrajectory()
            part.points = [
                message_point(knots[i], velocities[i], k * PERIOD)
                for k, i in enumerate((index, index + 1))
            ]
            low, high = sorted((knots[index, 0], knots[index + 1, 0]))
            assert low - 1e-9 <= cubic(part, share * PERIOD)[0] <= high + 1e-9

    def test_a_new_trajectory_only_when_the_old_one_is_used_up_or_wrong(self):
        renewal = Renewal()

        def now(at, pose, holding=False):
            return Motion(100.0 + at, PERIOD, np.array([[pose]]), holding)

        assert renewal.is_due(now(0.0, 0.0))
        sent = Motion(100.0, PERIOD, 0.02 * np.arange(11.0)[:, np.newaxis])
        renewal.sent(sent, 6)
        assert not renewal.is_due(now(0.04, 0.02))
        assert not renewal.is_due(now(0.05, 0.025)), 'a tick that is late is still on the way'
        assert renewal.is_due(now(0.04, 0.03)), 'another chunk has taken over'
        assert renewal.is_due(now(0.04, 0.02, holding=True))
        assert renewal.is_due(now(0.12, 0.06)), 'half of the targets are used up'
        assert renewal.is_due(now(-0.1, 0.0)), 'the clock went back'


def message_point(position, velocity, at):
    from trajectory_msgs.msg import JointTrajectoryPoint

    from hbvla_ros.nodes.conversions import to_duration

    return JointTrajectoryPoint(
        positions=list(position), velocities=list(velocity), time_from_start=to_duration(at)
    )
