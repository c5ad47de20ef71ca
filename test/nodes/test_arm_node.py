# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The arm node against fake drivers over real DDS."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rclpy.clock import ClockType
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from hbvla_ros.nodes.arm_node import ArmNode
from hbvla_ros.nodes.conversions import to_time

# s until the arms rest: the bound of 0.25 s, the watchdog's period of 0.05 s, and the way of the
# last joint state to the node and of the last command back.
STOPPED = 0.4


@pytest.fixture
def arms(graph, robot, wait):
    """An active arm node that hears its robot, in simulated time, and holds."""
    robot.simulate()
    node = graph.add(ArmNode, diagnostics_rate=10.0, use_sim_time=True)
    node.start()
    assert wait(lambda: robot.last() is not None)
    return node


def ramp(profile, rise, rows=25, joint=0):
    """A chunk that moves one joint away from the start pose and back to no other."""
    actions = np.tile(profile.start_pose, (rows, 1))
    actions[:, joint] += np.linspace(0.0, rise, rows)
    return actions


def assert_safe(recorded, profile):
    assert np.isfinite(recorded).all()
    assert (recorded >= profile.lower - 1e-9).all() and (recorded <= profile.upper + 1e-9).all()
    # A late tick may cover two periods.
    steps = np.abs(np.diff(recorded, axis=0))
    assert (steps <= profile.velocity * 2 / profile.control_rate + 1e-9).all()


def rests(robot, since=STOPPED):
    robot.live(since)
    before = robot.last()
    robot.live(0.3)
    return np.array_equal(before, robot.last())


def test_inactive_it_sends_nothing(graph, robot, wait):
    node = graph.add(ArmNode)
    node.trigger_configure()
    robot.send(np.tile(robot.pose, (5, 1)))
    robot.live(0.5)
    assert node.state_label == 'inactive' and robot.last() is None
    assert wait(lambda: robot.count_publishers('left/commands') == 1)


def test_it_starts_by_holding_the_measured_pose(graph, robot, profile, wait):
    robot.pose[:] = profile.start_pose + 0.07
    robot.pose[[6, 13]] = 0.4
    measured = robot.pose.copy()
    node = graph.add(ArmNode)
    node.start()
    assert wait(lambda: len(robot.recorded()) > 10)
    np.testing.assert_allclose(robot.recorded(), np.tile(measured, (len(robot.recorded()), 1)))


def test_an_arm_outside_its_limits_comes_back_at_limited_speed(graph, robot, profile, wait):
    robot.pose[1] = -2.5
    node = graph.add(ArmNode)
    node.start()
    assert wait(lambda: robot.last() is not None and robot.last()[1] == profile.lower[1])
    path = np.append(-2.5, robot.recorded()[:, 1])
    step = profile.velocity[1] / profile.control_rate
    assert path[1] == pytest.approx(-2.5 + step) and (np.diff(path) <= 2 * step + 1e-9).all()
    assert (np.diff(path) >= 0.0).all()


def test_joint_states_that_cannot_be_true_are_a_fault(graph, robot, profile, wait):
    robot.pose[8] = np.degrees(profile.start_pose[8])
    node = graph.add(ArmNode, diagnostics_rate=10.0)
    node.start()
    assert wait(lambda: robot.reported('arm_node', 'too far outside its limits'))
    report = next(r for r in robot.reports if 'too far outside its limits' in r.message)
    assert 'right_shoulder is measured at -55' in report.message
    assert report.level == b'\x02' and robot.last() is None
    robot.pose[8] = profile.start_pose[8]
    assert wait(lambda: robot.last() is not None)


def test_an_old_pose_is_no_start(graph, robot, wait):
    """Whoever moved the arm since then, the first command would pull it back in one step."""
    node = graph.add(ArmNode)
    node.trigger_configure()
    assert wait(lambda: node._joints.newest() is not None)
    robot.joints_on = False
    robot.live(0.4)
    node.trigger_activate()
    assert node._hindrance.startswith('no joint states for')  # before the watchdog's turn comes
    robot.live(0.4)
    assert robot.last() is None
    robot.joints_on = True
    assert wait(lambda: robot.last() is not None)


def test_a_slow_simulator_is_no_lost_driver(graph, robot, profile, wait):
    """Joint states every 0.4 s, but every 0.02 s of simulated time."""
    robot.joints_on = False
    clock = robot.create_publisher(Clock, '/clock', 1)
    node = graph.add(ArmNode, diagnostics_rate=10.0, use_sim_time=True)
    node.start()
    assert wait(lambda: clock.get_subscription_count() >= 1)
    for step in range(10):
        clock.publish(Clock(clock=to_time(10.0 + 0.02 * step)))
        robot.joints_on = True
        robot._publish_joints()
        robot.joints_on = False
        robot.live(0.4)
    assert wait(lambda: robot.last() is not None)
    faults = {r.message for r in list(robot.reports) if r.level == b'\x02'}
    assert faults <= {'holding: no joint states from left/joint_states'}


def test_a_single_row_is_refused(robot, arms, profile, wait):
    """It has no step, so nobody knows for how long it was meant."""
    robot.send([profile.start_pose + 0.5], delay=0.2)
    assert wait(lambda: 'a single row' in robot.report('arm_node', 'last refusal'))
    robot.live(0.4)
    np.testing.assert_allclose(robot.last(), profile.start_pose)


def test_chunk_is_executed_and_then_held(robot, arms, profile, wait):
    robot.send(ramp(profile, 0.5), delay=0.05)
    assert wait(lambda: robot.last()[0] > 0.45)
    assert rests(robot)
    recorded = robot.recorded()
    assert recorded[-1][0] == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(recorded[-1][1:], profile.start_pose[1:], atol=1e-9)
    assert_safe(recorded, profile)
    assert wait(lambda: robot.report('arm_node', 'chunks accepted') == '1')
    assert wait(lambda: robot.report('arm_node', 'mode') == 'holding')


def test_chunks_are_executed_in_real_time_too(graph, robot, profile, wait):
    node = graph.add(ArmNode)
    node.start()
    goal = profile.start_pose.copy()
    goal[0] = 0.3

    def arrives():
        # As a policy does: a machine that stood still has made the chunk before this one void.
        robot.send(np.tile(goal, (25, 1)))
        robot.live(0.5)
        return robot.last() is not None and abs(robot.last()[0] - 0.3) < 1e-6

    assert wait(arrives)
    assert_safe(robot.recorded(), profile)


def test_command_rate_is_the_profiles(robot, arms, profile):
    before = len(robot.recorded())
    robot.live(2.0)
    assert len(robot.recorded()) - before == pytest.approx(2.0 * profile.control_rate, abs=6)


def test_in_real_time_the_tick_is_on_a_clock_that_nobody_sets(graph, robot, profile, wait):
    node = graph.add(ArmNode)
    node.start()
    assert node._tick_timer.clock.clock_type == ClockType.STEADY_TIME
    assert node._tick_timer.timer_period_ns == pytest.approx(1e9 / profile.control_rate)
    began, before = time.monotonic(), len(robot.recorded())
    assert wait(lambda: len(robot.recorded()) > before + 25)
    assert time.monotonic() - began > 0.9 * 25 / profile.control_rate


def test_chunk_that_is_not_finite_moves_nothing(robot, arms, profile, wait):
    actions = ramp(profile, 0.5)
    actions[10, 13] = np.nan
    robot.send(actions)
    assert wait(lambda: robot.report('arm_node', 'last refusal') == 'not finite')
    np.testing.assert_allclose(robot.last(), profile.start_pose)


def test_targets_beyond_the_limits_are_clamped_and_counted(robot, arms, profile, wait):
    robot.send(np.tile(np.full(14, 9.0), (40, 1)))
    assert wait(lambda: np.allclose(robot.last(), profile.upper))
    recorded = robot.recorded()
    assert_safe(recorded, profile)
    assert wait(lambda: robot.report('arm_node', 'clamped position') not in ('', '0'))
    assert wait(lambda: robot.report('arm_node', 'clamped velocity') not in ('', '0'))


def test_chunks_with_other_joints_are_refused(robot, arms, profile, wait):
    robot.send(np.zeros((5, 14)), names=[f'x{i}' for i in range(14)])
    assert wait(lambda: 'other joint names' in robot.report('arm_node', 'last refusal'))
    np.testing.assert_allclose(robot.last(), profile.start_pose)


@pytest.mark.parametrize('delay, reason', [(-5.0, 'all rows are past'), (3.0, 'starts ')])
def test_chunks_of_another_time_are_refused(robot, arms, profile, wait, delay, reason):
    robot.send(ramp(profile, 0.5), delay=delay)
    assert wait(lambda: reason in robot.report('arm_node', 'last refusal'))
    np.testing.assert_allclose(robot.last(), profile.start_pose)


def test_empty_chunk_stops_at_once(robot, arms, profile, wait):
    robot.send(ramp(profile, 1.0, rows=100))
    assert wait(lambda: robot.last()[0] > 0.1)
    robot.send(np.empty((0, 14)))
    assert rests(robot)
    assert robot.last()[0] < 0.6


def test_lost_joint_states_hold_and_come_back(robot, arms, profile, wait):
    robot.send(ramp(profile, 2.0, rows=100))
    assert wait(lambda: robot.last()[0] > 0.1)
    robot.joints_on = False
    assert rests(robot)
    assert wait(lambda: robot.report('arm_node').level == b'\x02')
    assert 'no joint states for' in robot.report('arm_node').message
    robot.send(ramp(profile, 2.0))
    assert wait(lambda: 'while holding' in robot.report('arm_node', 'last refusal'))
    assert rests(robot, 0.1)
    robot.joints_on = True
    assert wait(lambda: robot.report('arm_node').level != b'\x02')
    before = robot.last()[0]
    robot.send(ramp(profile, 2.0))
    assert wait(lambda: abs(robot.last()[0] - before) > 0.1)
    assert_safe(robot.recorded(), profile)


def test_drivers_that_come_late_and_go_again(graph, robot, wait):
    robot.joints_on = False
    node = graph.add(ArmNode, diagnostics_rate=10.0)
    node.start()
    assert wait(lambda: 'no joint states from left/' in robot.report('arm_node').message)
    robot.joints_on = True
    assert wait(lambda: robot.last() is not None)
    robot.joints_on = False
    assert wait(lambda: 'no joint states for' in robot.report('arm_node').message)
    robot.joints_on = True
    assert wait(lambda: robot.report('arm_node').level != b'\x02')


def test_arm_moved_by_hand_is_held_where_it_is(robot, arms, profile, wait):
    robot.follow = False
    robot.pose[1] += 0.5
    assert wait(lambda: abs(robot.last()[1] - robot.pose[1]) < 1e-6)
    assert_safe(robot.recorded(), profile)


def test_reset_service_forgets_the_chunk(graph, robot, arms, profile, wait):
    robot.send(ramp(profile, 1.0, rows=100))
    assert wait(lambda: robot.last()[0] > 0.1)
    client = robot.create_client(Trigger, 'arm_node/reset')
    assert wait(client.service_is_ready)
    answer = client.call_async(Trigger.Request())
    assert wait(answer.done) and answer.result().success
    assert rests(robot)


def test_deactivated_it_goes_silent(robot, arms, wait):
    arms.trigger_deactivate()
    robot.live(0.2)
    count = len(robot.recorded())
    robot.live(0.4)
    assert len(robot.recorded()) == count and arms.state_label == 'inactive'
    arms.trigger_activate()
    assert wait(lambda: len(robot.recorded()) > count)


def test_configure_again_after_cleanup(arms, wait, robot):
    arms.trigger_deactivate()
    arms.trigger_cleanup()
    assert arms.state_label == 'unconfigured'
    arms.start()
    count = len(robot.recorded())
    assert wait(lambda: len(robot.recorded()) > count + 5)


def steps_beside(profile, first, second):
    """Two long chunks that stand still, joint 0 at ``first`` and then at ``second``."""
    rows = np.tile(profile.start_pose, (2, 200, 1))
    rows[0, :, 0], rows[1, :, 0] = first, second
    rows[0, :, 6], rows[1, :, 6] = 0.2, 0.6
    return rows


@pytest.mark.parametrize('weight, expected', [(None, 0.4), (0.0, 0.3), (np.log(3.0), 0.25)])
def test_chunks_in_force_are_averaged_if_so_configured(
    graph, robot, profile, wait, weight, expected
):
    """The older chunk weighs ``exp(weight)`` times as much; grippers obey the newest."""
    robot.simulate()
    parameters = {} if weight is None else {'temporal_ensemble': float(weight)}
    node = graph.add(ArmNode, diagnostics_rate=10.0, use_sim_time=True, **parameters)
    node.start()
    assert wait(lambda: robot.last() is not None)
    first, second = steps_beside(profile, 0.2, 0.4)
    robot.send(first)
    assert wait(lambda: abs(robot.last()[0] - 0.2) < 1e-6)
    robot.send(second)
    assert wait(lambda: abs(robot.last()[0] - expected) < 1e-6)
    robot.live(0.3)
    assert robot.last()[0] == pytest.approx(expected, abs=1e-6), 'and stays there'
    assert robot.last()[6] == pytest.approx(0.6)
    assert_safe(robot.recorded(), profile)
    shown = robot.report('arm_node', 'temporal ensemble')
    assert shown == 'off' if weight is None else float(shown) == pytest.approx(weight, abs=1e-3)


def test_parameters_are_described(arms):
    for name in ('robot', 'temporal_ensemble', 'diagnostics_rate', 'autostart'):
        assert arms.describe_parameter(name).description.endswith('.')
    result = arms.set_parameters([Parameter('robot', value='other')])
    assert not result[0].successful
